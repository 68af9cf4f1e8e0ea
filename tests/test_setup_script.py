"""colab_setup.sh with stand-ins for Python: which one it takes, and what it asks of pip."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Answers the questions that the script asks of a Python, and notes down everything it is asked.
STAND_IN = r"""#!/bin/sh
echo "$*" >>"$STAND_IN_LOG"
case "$*" in
    *'sep="."'*) echo "$STAND_IN_VERSION" ;;
    *'sys.version_info < (3, 11)'*) [ "$STAND_IN_VERSION" != 3.10 ] ;;
    *'print(sys.executable)'*) echo "$0" ;;
    *'version("peft")'*) printf "$STAND_IN_PEFT" ;;
    '-P -') printf "$STAND_IN_TORCH\n$STAND_IN_SYSTEM\nnone\n" ;;
    '-P - '*) echo "torch==2.6.0" ;;
    '-m venv '*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
    *' install '*) mkdir -p lora_kit.egg-info; exit "$STAND_IN_PIP_STATUS" ;;
esac
"""

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")


class Box:
    """A folder with a space in its name that holds the script, and a PATH full of stand-ins."""

    def __init__(self, folder):
        self.project = folder / "my project"
        self.project.mkdir()
        for name in ("colab_setup.sh", "pyproject.toml"):
            shutil.copy(ROOT / name, self.project)
        self.programs = folder / "programs"
        self.programs.mkdir()
        for name in ("python3", "python3.11", "python3.12", "python3.13"):
            self.add(name, STAND_IN)
        self.add("nvidia-smi", "#!/bin/sh\nexit 1\n")
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self.log = folder / "log"

    def add(self, name, text):
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def run(
        self, *words, version="3.12", torch="2.6.0", system="free", pip_status="0", peft="", **signs
    ):
        self.log.write_text("")
        environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "TMPDIR": str(self.elsewhere),
            "STAND_IN_LOG": str(self.log),
            "STAND_IN_VERSION": version,
            "STAND_IN_TORCH": torch,
            "STAND_IN_SYSTEM": system,
            "STAND_IN_PIP_STATUS": pip_status,
            "STAND_IN_PEFT": peft,
            **signs,
        }
        return subprocess.run(
            ["bash", str(self.project / "colab_setup.sh"), *words],
            cwd=self.elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def installs(self):
        return [line for line in self.log.read_text().splitlines() if " install " in line]


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def test_help_tells_the_words(box):
    text = box.run("--help").stdout
    assert "colab_setup.sh demo" in text
    assert "set -euo" not in text


def test_an_unknown_word_is_refused_and_the_known_ones_are_named(box):
    run = box.run("tets")
    assert run.returncode == 1
    assert "'tets'" in run.stderr
    assert "demo, test, setup" in run.stderr
    assert box.log.read_text() == ""


def test_a_python_that_is_too_old_is_named_with_what_to_do(box):
    run = box.run(version="3.10")
    assert run.returncode == 1
    assert "needs Python 3.11 or newer; found: 3.10" in run.stderr
    assert "uv python install" in run.stderr
    assert not box.installs()


def test_a_hosts_python_is_used_and_its_torch_is_held(box):
    run = box.run("setup", COLAB_GPU="1")
    assert run.returncode == 0, run.stderr
    assert not (box.project / ".venv").exists()
    (install,) = box.installs()
    assert "--constraint" in install
    assert install.endswith("--editable .[heic]")
    held = next(line for line in box.log.read_text().splitlines() if line.startswith("-P - "))
    assert {"torch", "torchvision", "numpy", "pillow", "ipywidgets"} <= set(held.split())


def test_an_environment_with_torch_is_used_as_it_is(box):
    assert box.run("setup").returncode == 0
    assert not (box.project / ".venv").exists()


@pytest.mark.parametrize("torch", ["none", "2.5.1 old"])
def test_without_a_new_enough_torch_there_is_an_own_environment(box, torch):
    run = box.run("setup", torch=torch)
    assert run.returncode == 0, run.stderr
    assert (box.project / ".venv" / "bin" / "python").exists()
    first, second = box.installs()
    assert "torch==" in first
    assert second.endswith("--editable .[heic]")


def test_a_host_with_an_old_torch_is_told_that_notebooks_need_another(box):
    run = box.run("setup", torch="2.5.1 old", RUNPOD_POD_ID="x")
    assert "Runpod's Python has torch 2.5.1 old" in run.stdout
    assert (box.project / ".venv").exists()


def test_a_systems_own_python_is_left_alone_but_lends_its_torch(box):
    assert box.run("setup", system="managed").returncode == 0
    assert "--system-site-packages" in box.log.read_text()
    (install,) = box.installs()
    assert install.endswith("--editable .[heic]")


def test_a_gpu_gets_the_usual_build_of_torch(box):
    box.add("nvidia-smi", "#!/bin/sh\nexit 0\n")
    box.add("df", "#!/bin/sh\necho head\necho d 0 0 99999999 0% /\n")
    assert box.run("setup", torch="none").returncode == 0
    assert box.installs()[0].endswith("torch>=2.6")


def test_a_full_disk_is_noticed_before_anything_is_fetched(box):
    box.add("df", "#!/bin/sh\necho head\necho d 0 0 1024 0% /\n")
    run = box.run("setup", torch="none")
    assert run.returncode == 1
    assert "has 1 MB free" in run.stderr
    assert not box.installs()


@pytest.mark.parametrize("torch", ["none", "2.6.0"])
def test_the_second_run_asks_pip_for_nothing(box, torch):
    assert box.run("setup", torch=torch).returncode == 0
    assert box.installs()
    assert box.run("setup", torch=torch).returncode == 0
    assert not box.installs()


def test_changed_requirements_are_installed(box):
    box.run("setup", torch="none")
    with (box.project / "pyproject.toml").open("a") as file:
        file.write("# another line\n")
    box.run("setup", torch="none")
    assert box.installs()


def test_a_failed_installation_is_tried_again(box):
    assert box.run("setup", torch="none", pip_status="1").returncode == 1
    assert box.run("setup", torch="none").returncode == 0
    assert box.installs()


def test_tests_bring_the_developers_tools_and_setup_then_has_nothing_to_do(box):
    run = box.run("test", "-k", "two words")
    assert box.installs()[0].endswith("--editable .[dev]")
    assert box.log.read_text().splitlines()[-1] == "-m pytest -k two words"
    assert run.returncode == 0
    box.run("setup")
    assert not box.installs()


def test_all_tests_run_in_two_processes(box):
    assert box.run("test").returncode == 0
    assert box.log.read_text().splitlines()[-1] == "-m pytest -n 2 --dist loadfile"


def test_the_demo_gets_its_arguments_and_stays_in_the_callers_folder(box):
    box.run("demo", "--steps", "3")
    assert box.log.read_text().splitlines()[-1] == "-P -m kit demo --steps 3"


@pytest.mark.parametrize(("version", "held"), [("11.0.0", ""), ("11.3.0", "pillow==11.3.0")])
def test_a_pillow_below_the_floor_is_not_held(tmp_path, version, held):
    info = tmp_path / f"pillow-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pillow\nVersion: {version}\n")
    text = (ROOT / "colab_setup.sh").read_text("utf-8")
    function = text[
        text.index("versions_of() {") : text.index("\nPY\n}", text.index("versions_of() {"))
    ]
    script = f"python={sys.executable!r}\n{function}\nPY\n}}\nversions_of pillow no-such-package"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == held


def test_an_old_peft_is_told_with_what_to_do_and_nothing_is_called_ready(box):
    run = box.run("setup", peft="0.17.1")
    assert run.returncode == 1
    assert "PEFT 0.17.1, which is installed here, does not load" in run.stderr
    assert "-m pip install --upgrade 'peft>=0.18'" in run.stderr
    assert not list(box.project.rglob("*.mark"))


@pytest.mark.parametrize(
    ("version", "told"), [("", ""), ("0.9.0", "0.9.0"), ("0.17.1", "0.17.1"), ("0.18.0", "")]
)
def test_which_peft_is_too_old(tmp_path, version, told):
    if version:
        info = tmp_path / f"peft-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: peft\nVersion: {version}\n")
    script = (ROOT / "colab_setup.sh").read_text("utf-8")
    begin = script.index("old_peft() {")
    function = script[begin : script.index("\n}\n", begin) + 3]
    # Isolated from what is installed here: only the folder above is looked into.
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" -S "$@"\n')
    stand_in.chmod(0o755)
    run = subprocess.run(
        ["bash", "-c", f'python="{stand_in}"\n{function}old_peft'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == told
