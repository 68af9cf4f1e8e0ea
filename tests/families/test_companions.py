"""A neighbour that breaks diffusers is named with its remedy, in the first error that it causes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.families.companions import _told

ROOT = Path(__file__).parents[2]


@pytest.fixture
def old_peft(tmp_path):
    """PEFT 0.17 beside transformers 5, as far as diffusers gets into it."""
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "__init__.py").write_text("from transformers import HybridCache\n")
    info = tmp_path / "peft-0.17.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.17.1\n")
    return tmp_path


def test_an_old_peft_is_named_by_the_command_and_by_the_door(old_peft, tmp_path):
    env = {**os.environ, "PYTHONPATH": f"{old_peft}{os.pathsep}{ROOT}"}
    asked = "import kit\ntry: kit.train\nexcept kit.errors.KitError as error: print(error)"

    door = subprocess.run([sys.executable, "-c", asked], env=env, capture_output=True, text=True)
    words = [sys.executable, "-m", "kit", "demo", "--out", str(tmp_path / "out")]
    command = subprocess.run(words, env=env, capture_output=True, text=True)

    assert "Traceback" not in command.stderr
    for told in (door.stdout, command.stderr):
        assert "because peft 0.17.1 does not: cannot import name 'HybridCache'" in told
        assert "pip install --upgrade peft; then restart the kernel" in told
    assert command.returncode == 2


def test_a_package_that_is_not_there_is_named():
    error = _told(ModuleNotFoundError("No module named 'tokenizers'", name="tokenizers"))
    assert "pip install --upgrade tokenizers" in str(error)
