"""Two trainings in one folder: the second is refused, and a dead one's lock is no lock."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from kit.errors import OutputError
from kit.runs import lock
from kit.runs.lock import NAME, at_work_in, who_is_at_work_in

HOLD = """
import sys, time
from pathlib import Path
from kit.runs.lock import at_work_in
with at_work_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder_of(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().strip() == "held"
    return process


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    run_dir = tmp_path / "cat.run"
    process = holder_of(run_dir)
    try:
        with pytest.raises(OutputError, match=rf"cat\.run \(process {process.pid}\)"):
            at_work_in(run_dir).__enter__()
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()
    assert (run_dir / NAME).exists()  # nobody took it away
    with at_work_in(run_dir):
        assert json.loads((run_dir / NAME).read_text("utf-8"))["pid"] == os.getpid()
    assert not run_dir.exists()  # nothing came into it


def test_the_same_process_is_refused_too(tmp_path):
    with at_work_in(tmp_path), pytest.raises(OutputError, match="this process, in a training"):
        at_work_in(tmp_path).__enter__()
    with at_work_in(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError, match="cannot be written"):
        at_work_in(tmp_path / "file" / "cat.run").__enter__()


def written(folder, **holder):
    (folder / NAME).write_text(json.dumps(holder), "utf-8")


@pytest.mark.parametrize(
    ("holder", "is_refused"),
    [
        ({"pid": os.getppid(), "host": socket.gethostname(), "since": 1}, True),
        ({"pid": 2**22 + 7, "host": socket.gethostname(), "since": 1}, False),  # no such process
        ({"pid": 5, "host": "another", "since": int(time.time())}, True),
        ({"pid": 5, "host": "another", "since": int(time.time() - 2 * lock.STALE)}, False),
        ({"pid": "5", "host": None}, False),
        ({}, False),
    ],
)
def test_without_locks_the_file_says_who_is_at_work(holder, is_refused, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    written(tmp_path, **holder)
    if is_refused:
        with pytest.raises(OutputError, match="already at work"):
            at_work_in(tmp_path).__enter__()
    else:
        with at_work_in(tmp_path):
            pass
        assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, "\0"])
def test_a_damaged_file_is_nobodys(text, tmp_path):
    (tmp_path / NAME).write_text(text, "utf-8")
    with at_work_in(tmp_path):
        pass


def test_somebody_who_only_looks_keeps_nobody_out(tmp_path):
    run_dir = tmp_path / "cat.run"
    run_dir.mkdir()
    (run_dir / NAME).write_text('{"pid": 4194303, "host": "here", "since": 1}', "utf-8")
    looking = (run_dir / NAME).open("r+")
    fcntl.flock(looking, fcntl.LOCK_EX)  # for a moment, as who_is_at_work_in does
    threading.Timer(0.15, looking.close).start()
    with at_work_in(run_dir):
        assert who_is_at_work_in(run_dir)["pid"] == os.getpid()
    assert who_is_at_work_in(run_dir) is None
