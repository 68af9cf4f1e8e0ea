"""The base model's files are asked for before torch loads, and only where that helps."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from kit.basemodel import reading_ahead
from kit.basemodel.reading_ahead import read_ahead
from kit.hosts import host
from tests.support.tiny import write_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture
def asked(monkeypatch):
    """What the system is asked for: inode numbers of files, to their ends."""
    files = []

    def advise(number, start, length, advice):
        assert (start, length, advice) == (0, 0, os.POSIX_FADV_WILLNEED)
        files.append(os.fstat(number).st_ino)

    monkeypatch.setattr(os, "posix_fadvise", advise)
    return files


def inodes(paths):
    return sorted(path.stat().st_ino for path in paths)


def test_a_folders_weights_are_asked_for_and_nothing_else(model, asked):
    read_ahead(str(model)).join()
    assert sorted(asked) == inodes(model.rglob("*.safetensors"))
    assert len(asked) == 3


def test_what_is_not_here_or_no_model_is_left_alone(tmp_path, asked):
    (tmp_path / "notes.txt").write_text("no model")
    for name in ("owner/name", str(tmp_path / "none.safetensors"), str(tmp_path), "", "\0"):
        assert read_ahead(name) is None
    assert asked == []


def test_a_model_larger_than_the_free_memory_is_left_alone(model, asked, monkeypatch):
    monkeypatch.setattr(reading_ahead, "free_memory", lambda: 1000)
    assert read_ahead(str(model)) is None


def test_a_mounted_drive_is_left_alone(model, asked, monkeypatch):
    monkeypatch.setattr(reading_ahead, "host", lambda: replace(host(), slow=model.parent))
    assert read_ahead(str(model)) is None


def test_kit_train_asks_before_torch_loads(model, tmp_path):
    """In a process of its own, because torch is loaded in this one."""
    told = f"""
import sys
from kit import catalog, cli
def ahead(name): print("asked for", name, "torch" in sys.modules)
def load(code): sys.exit(print("loads", code))
cli.read_ahead, cli.catalog = ahead, type("Catalog", (), {{"load": staticmethod(load)}})
cli.main(["train", "--set", "pretrained_model_name_or_path={model}", "--set",
    "train_data_dir={tmp_path}", "--set", "output_dir={tmp_path}/out"])
"""
    (tmp_path / "1_cat").mkdir()
    from PIL import Image

    Image.new("RGB", (512, 512)).save(tmp_path / "1_cat" / "cat.png")
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=False)
    lines = [line for line in ran.stdout.splitlines() if line.startswith(("asked", "loads"))]
    assert lines == [f"asked for {model} False", "loads kit.training.loop:train"], ran.stderr
