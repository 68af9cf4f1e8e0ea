from pathlib import Path

from kit.hosts import Host
from kit.ui import welcome as module
from kit.ui.welcome import lines, mounted_drive, welcome


def test_it_says_where_it_runs_with_what_and_where_results_go(tmp_path):
    here = Host("runpod", tmp_path, tmp_path / "output", persistent=True)
    told = list(lines(here, gpu=lambda: "Tesla T4, 15360 MiB"))
    assert told[0] == "Runs on Runpod."
    assert told[1] == "GPU: Tesla T4, 15360 MiB."
    assert str(tmp_path / "output") in told[2]
    assert len(told) == 3


def test_what_would_be_lost_is_told(tmp_path):
    here = Host("colab", tmp_path, tmp_path, persistent=False)
    told = list(lines(here, gpu=lambda: ""))
    assert "real models need a GPU" in told[1]
    assert "lost when the session ends" in told[-1]


def test_drive_is_asked_for_where_it_belongs():
    asked = []
    assert mounted_drive(asked.append) == ""
    assert asked == ["/content/drive"]


def test_a_refusal_is_told_and_ends_nothing(monkeypatch, capsys, tmp_path):
    def refuse(_place):
        raise ValueError("mount failed")

    assert "mount failed" in mounted_drive(refuse)
    here = Host("colab", Path(), tmp_path, persistent=False)
    monkeypatch.setattr(module, "host", lambda: here)
    welcome()
    assert "Google Drive is not connected" in capsys.readouterr().out


def test_a_plain_machine_is_not_asked_for_drive(monkeypatch, capsys):
    monkeypatch.setattr(module, "mounted_drive", lambda: 1 / 0)
    welcome()
    assert capsys.readouterr().out.startswith("Runs on this machine.")
