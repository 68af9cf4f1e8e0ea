from pathlib import Path

import pytest

from kit.hosts import Gpu, Host
from kit.ui import welcome as module
from kit.ui.welcome import connect_drive, lines, welcome
from tests.support.places import colab_like


def test_it_says_where_it_runs_with_what_and_where_results_go(tmp_path):
    here = Host("runpod", tmp_path, tmp_path / "output", persistent=True)
    told = list(lines(here, gpu=lambda: Gpu("Tesla T4", 16_106)))
    assert told[0] == "Runs on Runpod."
    assert told[1] == "GPU: Tesla T4, 16 GB."
    assert str(tmp_path / "output") in told[2]
    assert len(told) == 3


def test_what_would_be_lost_is_told(tmp_path):
    here = Host("colab", tmp_path, tmp_path, persistent=False)
    told = list(lines(here, gpu=lambda: None))
    assert "real models need a GPU" in told[1]
    assert "lost when the session ends" in told[-1]


def test_drive_is_asked_for_where_it_belongs():
    asked = []
    assert connect_drive(asked.append) == ""
    assert asked == ["/content/drive"]


def test_a_refusal_is_told_and_ends_nothing(monkeypatch, capsys, tmp_path):
    def refuse(_place):
        raise ValueError("mount failed")

    assert "mount failed" in connect_drive(refuse)
    here = Host("colab", Path(), tmp_path, persistent=False)
    monkeypatch.setattr(module, "host", lambda: here)
    monkeypatch.setattr(module.hosts, "ask_for_secrets", lambda *_: None)
    welcome(drive=True)
    told = capsys.readouterr().out
    assert told.startswith("Google Drive can be connected on Google Colab only.")
    assert "tick KEEP_RESULTS_ON_DRIVE" in told


def test_drive_that_is_there_is_not_asked_for_again(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "host", lambda: colab_like(tmp_path))
    assert connect_drive(lambda _: 1 / 0) == ""


@pytest.mark.parametrize("drive", [False, True])
def test_a_plain_machine_is_not_asked_for_drive(monkeypatch, capsys, drive):
    monkeypatch.setattr(module, "connect_drive", lambda: 1 / 0)
    welcome(drive=drive)
    told = capsys.readouterr().out
    assert told.startswith("Runs on this machine.")
    assert "!python -m kit selftest" in told.splitlines()[-1]
