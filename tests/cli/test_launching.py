"""`kit train` with several processes: what it starts, and the exit code it ends with."""

import sys
from pathlib import Path

import pytest

import kit.cli.launching as launching
from kit.cli import STOPPED, WRONG, main
from kit.events import Began, Failed
from kit.hosts import Gpu
from kit.launching.command import OF_A_LAUNCH, launch_asked_for
from kit.settings import Machine
from kit.sinks import read_events
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, toy_settings

STAND_IN = Path(__file__).parents[1] / "launching" / "stand_in.py"


@pytest.fixture(scope="module")
def toml(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launched")
    model = write_tiny(folder / "model", "sd1", thin=True)
    settings = toy_settings(
        model, draw_images(folder / "images"), folder / "out", max_train_steps=2, num_processes=2
    )
    (folder / "run.toml").write_text(settings.to_toml(), "utf-8")
    return folder / "run.toml"


@pytest.fixture
def starts(monkeypatch, tmp_path):
    """A stand-in takes the processes' place; what it was started with is returned."""
    started = []
    for name in OF_A_LAUNCH:
        monkeypatch.delenv(name, raising=False)

    def stand_in(how):
        def command(launch, machine, words):
            started.append(words)
            return [sys.executable, str(STAND_IN), str(tmp_path / "cat.run"), how]

        monkeypatch.setattr(launching, "command", command)
        return started

    return stand_in


def train(toml, tmp_path):
    told = tmp_path / "run_dir.txt"
    return main(["train", str(toml), "--set", "seed=3", "--tell-folder", str(told)])


def events(tmp_path):
    return read_events(tmp_path / "cat.run" / "events.jsonl")


@pytest.fixture
def at_place(monkeypatch, tmp_path):
    """The stand-in's run lies where the processes would tell it, not where it was planned."""
    monkeypatch.setattr(launching, "_place_told", lambda file: tmp_path / "cat.run")


@pytest.mark.parametrize(("how", "code"), [("done", 0), ("fails", WRONG), ("nothing", WRONG)])
def test_it_ends_as_the_run_ends(toml, starts, at_place, tmp_path, capsys, how, code):
    started = starts(how)
    assert train(toml, tmp_path) == code
    [words] = started
    assert words[:2] == ["train", str(toml)]
    assert words[2:4] == ["--set", "seed=3"]
    out, err = capsys.readouterr()
    assert out.startswith("2 processes: accelerate launch --multi_gpu --num_processes 2 ")
    assert "batch" not in out  # the plan is told by the processes
    told = {"done": "", "fails": "rank 1: out of memory", "nothing": "before the run began"}
    assert told[how] in err


def test_the_processes_are_told_how_many_they_must_be(toml, starts, at_place, tmp_path):
    starts("done")
    train(toml, tmp_path)
    assert (tmp_path / "cat.run" / "environment.txt").read_text() == "2"


def test_where_nobody_said_why_it_ended_that_is_told_and_kept(
    toml, starts, at_place, tmp_path, capsys
):
    starts("dies")
    assert train(toml, tmp_path) == WRONG
    began, last = events(tmp_path)
    assert isinstance(began, Began)
    assert isinstance(last, Failed)
    assert last.text in capsys.readouterr().err


def test_a_stop_keeps_its_exit_code(toml, starts, at_place, tmp_path, monkeypatch):
    starts("stops")
    real = launching.Parent

    def asked(command, environment, run_dir, control):
        control.stop()
        return real(command, environment, run_dir, control)

    monkeypatch.setattr(launching, "Parent", asked)
    assert train(toml, tmp_path) == STOPPED


def test_more_processes_than_gpus_are_refused_before_anything_starts(
    toml, starts, tmp_path, capsys, monkeypatch
):
    started = starts("done")
    monkeypatch.setattr("kit.launching.command.there", lambda: (Gpu("Tesla T4", 16106),))
    assert train(toml, tmp_path) == WRONG
    assert "there is 1 on this machine" in capsys.readouterr().err
    assert not started


def test_one_of_the_processes_starts_none_itself(toml, starts, tmp_path, monkeypatch, capsys):
    started = starts("done")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert main(["plan", str(toml)]) == 0
    assert launch_asked_for(Machine(num_processes=2)) is None
    assert not started
