"""The process that starts the others: how it asks for an end, and what it says of one."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from kit.control import RunControl, stop_on_interrupt
from kit.errors import KitError
from kit.events import Failed, Finished, to_line
from kit.launching.last_words import last_word_of, state_of, write_failure
from kit.launching.parent import Parent
from kit.sinks import read_events

STAND_IN = Path(__file__).parent / "stand_in.py"


def parent(run_dir, how, control=None):
    words = [sys.executable, str(STAND_IN), str(run_dir), how]
    return Parent(words, dict(os.environ), lambda: run_dir, control or RunControl())


def told(run_dir, event):
    (run_dir / "events.jsonl").write_text(f"{to_line(event)}\n", "utf-8")


def test_a_run_that_is_done(tmp_path):
    last = parent(tmp_path / "cat.run", "done").wait()
    assert (last.event, last.code) == (Finished(10, "done"), 0)


def test_what_it_told_itself_is_kept(tmp_path):
    last = parent(tmp_path / "cat.run", "fails").wait()
    assert (last.event, last.code) == (Failed("rank 1: out of memory"), 1)


def test_one_that_ended_before_it_began_has_no_word_of_an_earlier_time(tmp_path):
    run_dir = tmp_path / "cat.run"
    run_dir.mkdir()
    told(run_dir, Finished(4, "asked to stop"))
    last = parent(run_dir, "nothing").wait()
    assert (last.event, last.code) == (None, 1)


def test_a_killed_one_leaves_no_last_word(tmp_path):
    last = parent(tmp_path / "cat.run", "dies").wait()
    assert last.code == -signal.SIGKILL
    assert not isinstance(last.event, Finished | Failed)


def signals(run_dir, *numbers):
    """Send this process signals once the run is at work, a second apart."""

    def work():
        while not (run_dir / "environment.txt").exists():
            time.sleep(0.05)
        for number in numbers:
            time.sleep(0.5)
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request_in_the_runs_folder(tmp_path, number):
    run_dir, control = tmp_path / "cat.run", RunControl()
    with stop_on_interrupt(control):
        thread = signals(run_dir, number)
        last = parent(run_dir, "stops", control).wait()
        thread.join()
    assert (last.event, last.code) == (Finished(4, "asked to stop"), 0)  # no signal reached it


def test_the_second_one_ends_it(tmp_path):
    run_dir, control = tmp_path / "cat.run", RunControl()
    with stop_on_interrupt(control):
        thread = signals(run_dir, signal.SIGINT, signal.SIGINT)
        last = parent(run_dir, "hangs", control).wait()
        thread.join()
    assert last.code == 9  # as the stand-in ends at SIGTERM


def test_what_cannot_be_started_is_told(tmp_path):
    with pytest.raises(KitError, match="cannot be started"):
        Parent([str(tmp_path / "nothing")], {}, lambda: None).wait()


def test_a_failure_is_written_behind_a_torn_line(tmp_path):
    file = tmp_path / "events.jsonl"
    told(tmp_path, Finished(1, "done"))
    with file.open("ab") as torn:
        torn.write(b'{"event": "Step')
    write_failure(tmp_path, "rank 0 was killed")
    assert file.read_bytes().endswith(b"\n")
    assert last_word_of(tmp_path, None, 1).event == Failed("rank 0 was killed")


def test_a_failure_is_written_into_an_empty_file(tmp_path):
    write_failure(tmp_path, "rank 0 was killed")
    assert read_events(tmp_path / "events.jsonl") == [Failed("rank 0 was killed")]
    assert state_of(tmp_path / "nowhere") is None
