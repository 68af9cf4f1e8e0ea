"""A real JupyterLab and a real headless Chromium, started once; only this machine is reached.

Screenshots go to the folder that LORA_KIT_SHOTS names, or to a temporary one. LORA_KIT_JUPYTER
names the Python whose JupyterLab is started, with its widgets and kernel: see colabs_lab.sh.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # Only this machine is reached. Not by a route of Playwright: that switches the cache off, and
    # sends each request through Python, megabytes of an upload as well.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
ROOT = Path(__file__).parents[2]
JUPYTER = os.environ.get("LORA_KIT_JUPYTER", sys.executable)
# Scroll bars that show inside the product, but in what is long by its nature: typed text and lists.
BARS = """() => {
  const shown = [];
  for (const el of document.querySelectorAll(".kit, .kit *")) {
    if (!el.offsetParent || el.matches("textarea, select")) continue;
    const style = getComputedStyle(el);
    const drawn = way => ["auto", "scroll"].includes(style["overflow" + way]);
    const { scrollWidth: w, clientWidth: W, scrollHeight: h, clientHeight: H } = el;
    const told = (way, inside, room) => shown.push(
      `${inside} px in ${room} ${way}: <${el.className}> with`,
      ...[...el.children].map(e => `  <${e.className}> ${e.textContent.slice(0, 40)}`));
    if (drawn("X") && w > W) told("across", w, W);
    if (drawn("Y") && h > H) told("down", h, H);
  }
  return shown;
}"""
# Until nothing of the product has moved for a quarter of a second, two seconds at most.
STILL = """async () => {
  const places = () => [...document.querySelectorAll(".kit, .kit *")].reduce((sum, el) => {
    const { x, y, width, height } = el.getBoundingClientRect();
    return sum + x + 3 * y + 7 * width + 13 * height;
  }, 0);
  for (let look = 0, before = NaN, same = 0; look < 40 && same < 5; look++) {
    const now = places();
    same = now === before ? same + 1 : 0;
    before = now;
    await new Promise(done => setTimeout(done, 50));
  }
}"""
QUIET = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
IS_OPEN = """() => {
  const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
  return !!(panel && panel.sessionContext && panel.content && panel.content.model);
}"""
KERNEL_ANSWERS = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
}"""


def pytest_collection_modifyitems(items):
    """Without a browser these tests cannot be run; they say so instead of failing."""
    try:
        if sys.executable == JUPYTER:
            import jupyterlab  # noqa: F401
        import playwright  # noqa: F401

        missing = "" if CHROMIUM else "there is no Chromium"
    except ImportError as error:
        missing = f"{error.name} is not installed"
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


@dataclass
class Lab:
    """A running JupyterLab and its folder."""

    url: str
    token: str
    folder: Path


@pytest.fixture(scope="package")
def lab(tmp_path_factory):
    root = tmp_path_factory.mktemp("lab")
    folder = root / "work"
    folder.mkdir()
    token, port = secrets.token_hex(16), _free_port()
    log = root / "lab.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                *(JUPYTER, "-m", "jupyterlab", "--no-browser", "--allow-root"),
                "--ServerApp.ip=127.0.0.1",
                f"--ServerApp.port={port}",
                "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={token}",
                f"--ServerApp.root_dir={folder}",
                "--LabApp.expose_app_in_browser=True",
                "--ServerApp.terminals_enabled=False",
            ],
            env=_environment(root),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    lab = Lab(f"http://127.0.0.1:{port}", token, folder)
    try:
        _wait_for(lab, process, log)
        yield lab
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="package")  # while it is open its loop runs, which tests elsewhere would see
def context():
    """One for all: what JupyterLab is made of is fetched and compiled once, not for each page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            ignore_default_args=["--hide-scrollbars"],  # a person sees them, and they take 15 px
        )
        yield browser.new_context(viewport={"width": 1280, "height": 1400})
        browser.close()


@dataclass
class Notebook:
    """A notebook open in the browser, as a person sees it."""

    page: object
    lab: Lab
    shots: Path
    complaints: list[str] = field(default_factory=list)

    def open(self, source):
        """A copy of this notebook, or one with these code cells, in a page of its own."""
        folder = str(time.time_ns())  # one of its own, for its outputs lie beside it
        name = f"{folder}/notebook.ipynb"
        target = self.lab.folder / name
        target.parent.mkdir()
        if isinstance(source, Path):
            shutil.copy(source, target)
        else:
            target.write_text(json.dumps(_notebook_of(source)), "utf-8")
        self.url = f"{self.lab.url}/lab/workspaces/w{folder}/tree/{name}?token={self.lab.token}"
        self.page.goto(self.url + "&reset")
        self.settle()
        self.command("application:toggle-left-area")
        return self

    def reload(self, *, busy=False):
        """busy: a cell waits in the kernel, which answers the page's questions and no other."""
        self.page.reload()
        if busy:
            self.page.wait_for_function(IS_OPEN, timeout=90_000)
        else:
            self.settle()

    def settle(self):
        """Wait until page and kernel answer."""
        self.page.wait_for_function(IS_OPEN, timeout=90_000)
        self.page.evaluate(KERNEL_ANSWERS)  # before, "Run all" would be swallowed

    def still(self):
        """Wait until what was resized, painted anew or folded lies still."""
        self.page.evaluate(STILL)

    def restart(self):
        """A new kernel, of which the page knows nothing yet."""
        self.command("kernelmenu:restart-and-clear")
        dialog = self.page.locator(".jp-Dialog")
        dialog.locator("button.jp-mod-accept").click()
        dialog.wait_for(state="detached")
        self.settle()

    def command(self, name, arguments=None):
        """A command of JupyterLab; not awaited, for a cell may keep it busy."""
        words = json.dumps([name, arguments or {}])
        self.page.evaluate(f"() => {{ window.jupyterapp.commands.execute(...{words}); }}")

    def run_all(self):
        self.command("notebook:run-all-cells")

    def save(self):
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")

    def theme(self, name):
        """Light or Dark; JupyterLab keeps it for all later pages.

        JupyterLab takes its splash away 200 ms after a change. Where two changes lie closer, as no
        person's do, it does so twice, and complains of the second time.
        """
        self.page.evaluate(
            "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})",
            f"JupyterLab {name}",
        )
        self.page.wait_for_function(
            "name => document.body.dataset.jpThemeName === name"
            " && !document.querySelector('#jupyterlab-splash')",
            arg=f"JupyterLab {name}",
        )

    @property
    def output(self):
        return self.page.locator(".jp-OutputArea")

    def field(self, name):
        """The control of a setting, in the first place where its row stands."""
        row = self.output.locator(f".kit-f-{name}").locator("visible=true").first
        return row.locator("input, select, textarea").first

    def fill(self, name, text):
        control = self.field(name)
        control.fill(text)
        control.press("Tab")

    def button(self, name):
        """The button of this name; an icon before it is no part of the name."""
        exactly = re.compile(rf"^\W*{re.escape(name)}$")
        return self.output.locator("button").filter(has_text=exactly).locator("visible=true").first

    def tab(self, name):
        return self.output.locator(f"[role=tab]:has-text('{name}')").first

    def shot(self, name, **options):
        """A picture of the page, in which nothing of the product scrolls within itself."""
        self.shots.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self.shots / f"{name}.png", **options)
        assert self.page.evaluate(BARS) == [], name

    def errors(self):
        """What cells printed to stderr or raised."""
        kinds = "stderr", "error"
        found = (f".jp-OutputArea [data-mime-type='application/vnd.jupyter.{k}']" for k in kinds)
        return [text for kind in found for text in self.page.locator(kind).all_inner_texts()]

    def is_quiet(self):
        """Neither console nor cells complained, and every widget is drawn."""
        assert not self.complaints
        assert not self.errors()
        assert not UNDRAWN.findall("\n".join(self.output.all_text_contents()))


# JupyterLab's widget manager writes the first to the console when it takes stock of the kernel's
# models while they come and go (a slow machine, a restarted kernel). Where a person would miss a
# widget because of it, the cell says one of the others.
TAKING_STOCK = "widget model not found"
# JupyterLab asks the kernel on its own account, too. A page that is loaded anew, or a kernel that
# starts anew, lets such a question go, which it then tells the console and nobody else.
LET_GO = re.compile(
    r"Canceled future for (debug|kernel_info|comm_info|history|complete|inspect)_request message"
)
# The timer that takes JupyterLab's splash away, after it was shown twice: alone on the stack, while
# a widget's removal or React's would stand there beneath others.
SPLASH = re.compile(r"\A[^\n]*'removeChild' on 'Node'[^\n]*\n.*\n +at \S+/jlab_core\.[^\s/]+\Z")
UNDRAWN = re.compile(r"Error displaying widget|Loading widget|show javascript error")


@pytest.fixture
def notebook(context, lab, tmp_path):
    """An empty page; it fails at its end if the page complained."""
    page = context.new_page()
    shots = Path(os.environ.get("LORA_KIT_SHOTS", tmp_path / "shots"))
    notebook = Notebook(page, lab, shots)
    page.on("console", lambda m: _take(notebook, m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: _take(notebook, f"{error}\n{error.stack}"))
    yield notebook
    for session in _ask(lab, "/api/sessions"):
        _ask(lab, f"/api/sessions/{session['id']}", method="DELETE")
    page.close()


def _take(notebook, text):
    """The badge of "Open in Colab" lies elsewhere, and nothing elsewhere is fetched."""
    if "net::ERR_NAME_NOT_RESOLVED" in text or TAKING_STOCK in text or LET_GO.search(text):
        return
    if SPLASH.search(text):
        return
    notebook.complaints.append(text)


def _ask(lab, path, method="GET"):
    request = urllib.request.Request(
        lab.url + path, method=method, headers={"Authorization": f"token {lab.token}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def _wait_for(lab, process, log):
    for _ in range(450):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            _ask(lab, "/api/status")
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def _environment(root):
    """Nothing of the person who runs the tests, and two cores that are not spun on."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "JPY", "COLAB"))}
    settings = root / "config/lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(QUIET))
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
        "MPLCONFIGDIR": "matplotlib",
        "HOME": "",
    }
    return {
        **plain,
        **{name: str(root / place) for name, place in places.items()},
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "LORA_KIT_EXAMPLE_STEPS": "24",
    }


def _notebook_of(cells):
    code = [
        {
            "cell_type": "code",
            "id": f"cell{number}",
            "metadata": {},
            "source": text,
            "outputs": [],
            "execution_count": None,
        }
        for number, text in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
