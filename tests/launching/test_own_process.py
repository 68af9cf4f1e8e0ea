"""A training as a process of its own: what it is started with, and what is left of it."""

import sys
import time

import pytest

from kit import hosts
from kit.errors import KitError
from kit.launching import own_process
from kit.launching.own_process import OwnProcess

TELLS = "import os; print('token', os.environ.get('HF_TOKEN')); print('kit: a\\nb')"


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(own_process, "command", lambda *_: [sys.executable, "-c", TELLS])


def ended(process):
    while process.poll() is None:
        time.sleep(0.05)
    return process


def test_secrets_go_by_the_environment_alone(stand_in, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(hosts, "_asked", {"HF_TOKEN": "hf_secret", "WANDB_API_KEY": ""})
    process = ended(OwnProcess("seed = 1"))
    assert "token hf_secret" in (process.folder / "log.txt").read_text()
    assert (process.folder / "settings.toml").read_text() == "seed = 1"
    assert process.last_words() == "a\nb"
    process.forget()
    assert not process.folder.exists()
    assert process.last_words() == ""


def test_the_command_is_kit_train_with_what_was_answered(tmp_path):
    words = own_process.command(tmp_path / "a.toml", tmp_path / "told.txt", "begin anew")
    assert words[1:] == [
        "-m", "kit", "train", str(tmp_path / "a.toml"), "--begin-anew",
        "--tell-folder", str(tmp_path / "told.txt"),
    ]  # fmt: skip


def test_what_cannot_be_started_is_told_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(own_process.tempfile, "mkdtemp", lambda prefix: str(made(tmp_path)))
    monkeypatch.setattr(own_process, "command", lambda *_: [str(tmp_path / "nothing")])
    with pytest.raises(KitError, match="cannot be started as a process of its own"):
        OwnProcess("")
    assert not (tmp_path / "own").exists()


def made(folder):
    (folder / "own").mkdir()
    return folder / "own"
