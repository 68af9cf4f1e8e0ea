"""Photographs and zips from the browser to a data set, in a real JupyterLab.

Smaller than what was tried by hand, 30 photographs of 5 MB and a zip of 200 MB: the variable
LORA_KIT_UPLOADS=full sends those.
"""

import io
import os
import random
import re
import time
import zipfile

import pytest
from PIL import Image
from playwright.sync_api import expect

FULL = os.environ.get("LORA_KIT_UPLOADS") == "full"
PHOTOGRAPHS, ZIP_MB = (30, 200) if FULL else (5, 25)
CELL = """
from pathlib import Path
from IPython.display import display
from kit.dataset.data_sets import Words
from kit.ui.look import root
from kit.ui.pictures.pictures_in import PicturesIn
got = []
words = Words("zxdog", "dog")
pictures = PicturesIn(lambda: Path("datasets").absolute(), got.append, lambda: words)
display(root(pictures.root))
display(pictures.script)
"""
COLAB = """
import os, sys, types
os.environ["COLAB_RELEASE_TAG"] = "stand-in"
functions = {}
output = types.ModuleType("google.colab.output")
output.register_callback = functions.__setitem__
colab = types.ModuleType("google.colab")
colab.output = output
sys.modules["google"] = types.ModuleType("google")
sys.modules["google.colab"], sys.modules["google.colab.output"] = colab, output
"""
# Stands for Colab's page: it asks the kernel by an expression, and gives its MIME bundle.
INVOKE = """() => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  window.google = {colab: {kernel: {accessAllowed: true, invokeFunction: async (name, args) => {
    const call = `functions[${JSON.stringify(name)}](*${JSON.stringify(args)})`;
    const done = kernel.requestExecute({code: "", silent: true, user_expressions: {it: call}});
    return (await done.done).content.user_expressions.it;
  }}}};
}"""
DROP = """([box, named]) => {
  const data = new DataTransfer();
  for (const [name, size, head = []] of named) {
    const rest = new Uint8Array(size - head.length).fill(7);
    data.items.add(new File([new Uint8Array(head), rest], name));
  }
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const event = {dataTransfer: data, bubbles: true, cancelable: true};
    box.dispatchEvent(new DragEvent(kind, event));
  }
}"""


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """JPEGs of noise, which are as large as photographs: about 5 MB each."""
    folder, made = tmp_path_factory.mktemp("photographs"), random.Random(3)
    first = io.BytesIO()
    noise = Image.frombytes("RGB", (2500, 1700), made.randbytes(2500 * 1700 * 3))
    noise.save(first, "JPEG", quality=95)
    assert 4e6 < first.tell() < 7e6
    paths = []
    for number in range(PHOTOGRAPHS):
        path = folder / f"photograph {number:02}.jpg"
        # Bytes behind the end, as cameras append them: every file is another.
        path.write_bytes(first.getvalue() + made.randbytes(64) + b"\xff\xd9")
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def large_zip(photographs):
    path, made = photographs[0].parent / "large.zip", random.Random(4)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        number = 0
        while path.stat().st_size < ZIP_MB * 1_000_000:
            content = photographs[0].read_bytes() + made.randbytes(8) + b"\xff\xd9"
            archive.writestr(f"mine/10_dog/{number:03}.jpg", content)
            archive.writestr(f"mine/10_dog/{number:03}.txt", f"a dog, number {number}")
            archive.fp.flush()
            number += 1
    return path


def open_box(notebook, *before):
    notebook.open([*before, CELL])
    notebook.run_all()
    expect(notebook.output.locator(".kit-up-pick").first).to_be_visible(timeout=60_000)
    return notebook.lab.folder / notebook.url.split("/tree/")[1].split("/")[0]


def send_at(browser, rate):
    """Let the browser send so many bytes a second; -1: as fast as it can."""
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1}
    browser.send("Network.emulateNetworkConditions", {**conditions, "uploadThroughput": rate})


def sent(notebook, what, timeout=120_000):
    """Wait until the page says so, and give its rate."""
    line = notebook.output.locator(".kit-upload [role=status]").first
    expect(line).to_contain_text("sent at", timeout=timeout)
    print(what, line.inner_text())


def files_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def leftovers(folder):
    """What an upload has left in the notebook's folder, beside the notebook and the data sets."""
    ours = {"notebook.ipynb", ".ipynb_checkpoints", "datasets", "lora-kit-uploads"}
    stage = folder / "lora-kit-uploads"
    pieces = [p.name for p in stage.rglob("*") if "-" in p.name and p.name != "in-use.txt"]
    return [path.name for path in folder.iterdir() if path.name not in ours] + pieces


def test_photographs_and_a_zip_arrive_and_a_cancelled_upload_leaves_nothing(
    notebook, photographs, large_zip
):
    folder = open_box(notebook)
    chosen = notebook.output.locator(".kit-upload input[type=file]").first
    line, arrived = (
        notebook.output.locator(css).first for css in (".kit-upload [role=status]", ".kit-arrived")
    )
    notebook.shot("upload-light-1280")
    browser = notebook.page.context.new_cdp_session(notebook.page)
    send_at(browser, 12_000_000)  # or all is there before one has looked
    chosen.set_input_files(photographs)
    expect(notebook.output.locator(".kit-up-cancel").first).to_be_visible()
    expect(line).to_contain_text(re.compile(rf"\d of {PHOTOGRAPHS} files, "), timeout=60_000)
    notebook.shot("upload-at-work-1280")
    sent(notebook, "photographs:")
    expect(arrived).to_contain_text(f"{PHOTOGRAPHS} pictures, 0 captions", timeout=30_000)
    home = folder / "datasets" / "zxdog dog" / "10_zxdog dog"
    assert [home / path.name for path in photographs] == sorted(home.iterdir())
    assert all((home / path.name).read_bytes() == path.read_bytes() for path in photographs)
    notebook.shot("upload-done-1280")

    # Cancelled in the midst: nothing is taken over, no piece stays.
    notebook.output.locator("select").first.select_option("a new data set")
    chosen.set_input_files(large_zip)
    expect(line).to_contain_text("1 of 1 files")
    notebook.output.locator(".kit-up-cancel").first.click()
    expect(line).to_have_text("Cancelled: nothing was taken over.")
    until(lambda: not leftovers(folder))
    assert [p.name for p in (folder / "datasets").iterdir()] == ["zxdog dog"]

    send_at(browser, -1)
    chosen.set_input_files(large_zip)
    sent(notebook, "zip:")
    expect(arrived).to_contain_text("captions in", timeout=60_000)
    expect(arrived).to_contain_text("large")
    with zipfile.ZipFile(large_zip) as archive:
        wanted = sorted(name.removeprefix("mine/") for name in archive.namelist())
    assert files_in(folder / "datasets" / "large") == wanted
    until(lambda: not leftovers(folder))
    assert not list(folder.rglob("10_dog/.ipynb_checkpoints"))
    notebook.is_quiet()


def test_pictures_are_dropped_and_what_is_wrong_is_told_there(notebook, photographs):
    folder = open_box(notebook)
    box = notebook.output.locator(".kit-up-live").first
    handle = box.element_handle()
    notebook.page.evaluate(DROP, [handle, [["broken.zip", 900_000]]])
    problem = notebook.output.locator(".kit-arrived [role=alert]").first
    expect(problem).to_contain_text("broken.zip is broken or no zip", timeout=30_000)
    assert not (folder / "datasets").exists() or not list((folder / "datasets").iterdir())
    notebook.shot("upload-refused-1280")
    # A name that would be a script, were it not escaped.
    evil = "<img src=x onerror=document.title='run'>.pdf"
    notebook.page.evaluate(DROP, [handle, [[evil, 10]]])
    expect(problem).to_contain_text("There is no picture among", timeout=30_000)
    assert notebook.page.title() != "run"
    drawn = io.BytesIO()
    Image.new("RGB", (1000, 1000)).save(drawn, "BMP")
    size, head = len(drawn.getvalue()), list(drawn.getvalue()[:54])
    dropped = [["a.bmp", size, head], ["a.txt", 0], [".hidden.png", 5]]
    notebook.page.evaluate(DROP, [handle, dropped])
    sent(notebook, "dropped:")
    home = folder / "datasets" / "zxdog dog" / "10_zxdog dog"
    until(lambda: home.is_dir() and len(list(home.iterdir())) > 1)
    assert {p.name: p.stat().st_size for p in home.iterdir()} == {"a.bmp": size, "a.txt": 0}
    notebook.page.set_viewport_size({"width": 400, "height": 900})
    notebook.theme("Dark")
    notebook.still()
    notebook.shot("upload-dark-400")
    notebook.theme("Light")
    notebook.is_quiet()


def test_on_colab_pieces_go_to_a_function(notebook, photographs):
    folder = open_colab(notebook)
    notebook.output.locator(".kit-upload input[type=file]").first.set_input_files(photographs[:1])
    sent(notebook, "by a stand-in of Colab's function:")
    copy = folder / "datasets" / "zxdog dog" / "10_zxdog dog" / photographs[0].name
    until(copy.is_file)
    assert copy.read_bytes() == photographs[0].read_bytes()
    notebook.is_quiet()


def open_colab(notebook):
    notebook.open([COLAB, CELL])
    notebook.page.evaluate(INVOKE)
    notebook.run_all()
    expect(notebook.output.locator(".kit-up-pick").first).to_be_visible(timeout=60_000)
    return notebook.lab.folder / notebook.url.split("/tree/")[1].split("/")[0]


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)
