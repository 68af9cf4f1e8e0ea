"""`kit control` and `kit watch`."""

import threading
import time

import pytest

from kit.cli import main, running
from kit.control import LrRequest, RunControl, SampleRequest
from kit.events import Failed, to_line
from kit.runs.control_files import Inbox
from kit.runs.lock import at_work_in
from kit.settings.prompts import parse_prompt
from tests.ui.runs import whole_run

EVENTS = list(whole_run(12))


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "PERIOD", 0.02)
    folder = tmp_path / "output" / "cat.run"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def at_work(run_dir):
    """A training of that folder, which reads its requests all the time."""
    control, over = RunControl(), threading.Event()

    def work(hold):
        while not over.wait(0.02):
            Inbox(run_dir, hold.id)(control)

    with at_work_in(run_dir) as hold:
        thread = threading.Thread(target=work, args=(hold,))
        thread.start()
        yield control
        over.set()
        thread.join(20)


def write(run_dir, events, mode="a"):
    with (run_dir / "events.jsonl").open(mode, encoding="utf-8") as file:
        file.write("".join(f"{to_line(event)}\n" for event in events))


def refused(capsys, *words):
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


# ------------------------------------------------------------------------------------- control


def test_what_is_asked_in_a_terminal_reaches_the_training(at_work, capsys):
    assert main(["control", "output/cat", "rate", "x0.5", "--part", "unet"]) == 0
    assert main(["control", "output/cat.run", "sample", "a cat --d 3"]) == 0
    assert at_work.take() == [
        LrRequest("unet", factor=0.5), SampleRequest(parse_prompt("a cat --d 3"))
    ]  # fmt: skip
    assert main(["control", "cat", "pause"]) == 0
    assert at_work.pause_requested
    assert main(["control", "cat", "stop"]) == 0
    assert at_work.stop_requested
    assert "cat: asked to stop. It ends after this step, and saves." in capsys.readouterr().out


def test_a_run_that_is_not_at_work_cannot_be_asked(run_dir, capsys):
    assert "No training is at work in output/cat.run" in refused(
        capsys, "control", "output/cat", "stop"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rate"], "'nothing' is no rate: write e.g. 5e-5, or x0.5"),
        (["rate", "fast"], "'fast' is no rate"),
        (["stop", "now"], "stop takes no value"),
        (["save", "--part", "unet"], "Only rate has a part"),
        (["sample", "a cat --w wide"], "--w"),
    ],
)
def test_what_cannot_be_met_is_refused_before_anybody_is_asked(at_work, capsys, words, told):
    assert told in refused(capsys, "control", "output/cat", *words)
    assert at_work.take() == []


def test_one_that_is_busy_is_told_to_answer_later(run_dir, capsys, monkeypatch):
    monkeypatch.setattr(running, "PATIENCE", 0.1)
    with at_work_in(run_dir):
        assert main(["control", "cat", "save"]) == 0
    assert "it will after this step" in capsys.readouterr().out


def test_one_that_ends_before_it_reads_is_said_to_have_done_nothing(run_dir, capsys):
    with at_work_in(run_dir):
        answers = []
        asking = threading.Thread(target=lambda: answers.append(main(["control", "cat", "save"])))
        asking.start()
        while not list(run_dir.glob("requests/*.json")):
            time.sleep(0.02)
    asking.join(20)
    assert answers == [2]
    assert "ended before it could read this; nothing was done" in capsys.readouterr().err
    assert not (run_dir / "requests").exists()


# --------------------------------------------------------------------------------------- watch


def test_a_run_that_is_over_is_told_from_its_beginning(run_dir, capsys):
    write(run_dir, EVENTS)
    assert main(["watch", "output/cat"]) == 0
    err = capsys.readouterr().err
    assert "steps 12/12 (100 %)" in err
    assert "done, at step 12" in err


def test_a_run_at_work_is_followed_to_its_end(run_dir, capsys):
    codes = []
    watching = threading.Thread(target=lambda: codes.append(main(["watch", "cat"])))
    with at_work_in(run_dir):
        watching.start()  # before it has told anything
        for event in EVENTS:
            write(run_dir, [event])
            time.sleep(0.01)
        time.sleep(0.2)
        assert watching.is_alive()  # it may tell more, as long as it holds its folder
    watching.join(20)
    assert codes == [0]
    assert capsys.readouterr().err.count("steps 12/12 (100 %)") == 1


def test_a_file_that_is_written_anew_is_not_shown_twice(run_dir, capsys):
    write(run_dir, EVENTS[:10])
    codes = []
    watching = threading.Thread(target=lambda: codes.append(main(["watch", "cat"])))
    with at_work_in(run_dir):
        watching.start()
        time.sleep(0.3)
        write(run_dir, EVENTS[:6], mode="w")
        time.sleep(0.3)
        write(run_dir, EVENTS[6:])
    watching.join(20)
    assert codes == [0]
    err = capsys.readouterr().err
    assert err.count("its folder is") == 1
    assert err.count("done, at step 12") == 1


@pytest.mark.parametrize(
    ("events", "code", "told"),
    [
        (EVENTS[:5], 2, "it was broken off"),
        ([*EVENTS[:5], Failed("out of memory")], 2, "cat broke off: out of memory"),
    ],
)
def test_one_that_broke_off_is_said_to_have(run_dir, capsys, events, code, told):
    write(run_dir, events)
    assert main(["watch", "cat"]) == code
    assert told in capsys.readouterr().err


def test_ctrl_c_leaves_the_run_alone(run_dir, capsys, monkeypatch):
    write(run_dir, EVENTS[:5])

    def pressed(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(running.time, "sleep", pressed)
    with at_work_in(run_dir):
        assert main(["watch", "cat"]) == 0
        assert not (run_dir / "requests").exists()
    assert "cat is left alone" in capsys.readouterr().err


def test_a_run_without_events_is_refused(run_dir, capsys):
    assert "nothing to show" in refused(capsys, "watch", "cat")
