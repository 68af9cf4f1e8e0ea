"""The process that starts the others: how it asks for an end, and what it says of one."""

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from kit.control import RunControl, stop_on_interrupt
from kit.errors import KitError
from kit.events import Failed, Finished, to_line
from kit.launching.last_words import last_word_of, signs_of, state_of, who_broke_off
from kit.launching.parent import Parent
from kit.processes import places

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


def sign(run_dir, rank, **fields):
    known = {"rank": rank, "pid": 2**22 + rank, "host": socket.gethostname(), **fields}
    path = places.path_of(run_dir, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known), "utf-8")


def test_the_process_that_was_killed_is_named_before_those_that_heard_of_it(tmp_path):
    sign(tmp_path, 0, doing="step 12")
    sign(tmp_path, 1, doing="step 12", words="Process 0 is lost")
    assert who_broke_off(places.read(tmp_path), 1).startswith(
        f"Process 0 (pid {2**22} on {socket.gethostname()}) ended without a word at step 12: it "
    )


def test_else_the_one_that_said_why(tmp_path):
    sign(tmp_path, 0, doing="caching latents", words="out of memory")
    sign(tmp_path, 1, doing="loading", words="Process 0 failed")
    told = who_broke_off(places.read(tmp_path), 1)
    assert told == "Process 0 failed while it was caching latents: out of memory"


def test_without_any_sign_the_launchers_own_end_is_told(tmp_path):
    assert "was killed by signal 9" in who_broke_off(places.read(tmp_path), -9)
    assert "ended with exit code 1" in who_broke_off(places.read(tmp_path), 1)
    assert state_of(tmp_path / "nowhere") is None
    assert last_word_of(tmp_path, None, 1).event is None


def test_what_an_earlier_launch_has_left_is_no_word_of_this_one(tmp_path):
    sign(tmp_path, 0, words="no memory left", born=1.0)
    heard = "Process 0 (pid 7 on a) ended at step 3 without a word"
    sign(tmp_path, 1, words=heard, heard=True, born=time.time())
    left = signs_of(tmp_path)
    assert [each.rank for each in left] == [1]
    assert who_broke_off(left, 1) == heard  # as the other machine's process told it
