"""The queue worked off, with a command that stands in for the training."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kit.control import RunControl
from kit.errors import KitError
from kit.launching.gpus import visible
from kit.queueing import working
from kit.queueing.changing import New, add, pause, remove, resume, retry, settle
from kit.queueing.outcome import LOG, is_alive
from kit.queueing.store import Queue
from kit.queueing.table import listed
from kit.queueing.working import Worker, train_command
from kit.runs.lock import who_is_at_work_in

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).with_name("stand_in.py")
WORK = f"""
import sys
from pathlib import Path
from kit.queueing import working
from kit.queueing.store import Queue
working.PERIOD = 0.05
command = lambda place, gpu: [sys.executable, {str(STAND_IN)!r}, str(place)]
working.Worker(Queue(Path(sys.argv[1])), gpus=sys.argv[2:], command=command).work()
"""


def command(place, gpu):
    return [sys.executable, str(STAND_IN), str(place)]


@pytest.fixture
def queue(tmp_path, monkeypatch):
    monkeypatch.setattr(working, "PERIOD", 0.05)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Queue(tmp_path / "queue")


def put(queue, *texts):
    start = queue.read().following
    runs = [New(f"run{n}", "output", text) for n, text in enumerate(texts, start)]
    return add(queue, runs, folder=queue.folder.parent)


def work(queue, **more):
    told = []
    tally = Worker(queue, tell=told.append, command=command, **more).work()
    return tally, told


def diary(queue):
    file = queue.folder / "diary.txt"
    return file.read_text("utf-8").splitlines() if file.exists() else []


def states(queue):
    return [entry.state for entry in settle(queue).entries]


def until(what, seconds=30.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


def test_one_after_another_and_a_failed_run_does_not_stop_the_next(queue):
    put(queue, "seconds = 0.3", 'code = 2\nsays = "kit: no images.\\nAdd some."', "code = 3", "")
    tally, told = work(queue)
    assert diary(queue) == [f"{n} {word} -" for n in (1, 2, 3, 4) for word in ("begins", "ends")]
    assert states(queue) == ["done", "failed", "stopped", "done"]
    assert tally.ended == {1: "done", 2: "failed", 3: "stopped", 4: "done"}
    assert queue.read().entries[1].note == "no images. Add some."
    assert any("2 run2: failed: no images. Add some." in line for line in told)


def test_nothing_is_started_again_by_itself_and_a_retry_is(queue):
    put(queue, "code = 1", "code = 3", "")
    work(queue)
    work(queue)
    assert len(diary(queue)) == 6
    queue.settings_file(1).write_text("code = 0", "utf-8")
    retry(queue, [1, 2])
    assert states(queue) == ["waiting", "waiting", "done"]
    work(queue)
    assert states(queue) == ["done", "stopped", "done"]


def test_a_run_counts_though_somebody_who_looks_has_written_down_how_it_ended(queue, monkeypatch):
    monkeypatch.setattr(working, "PERIOD", 0.5)
    put(queue, "", "code = 1")
    tallies = []
    thread = threading.Thread(target=lambda: tallies.append(work(queue)[0]))
    thread.start()
    while thread.is_alive():
        states(queue)  # as the list does
        time.sleep(0.05)
    assert tallies[0].ended == {1: "done", 2: "failed"}


def test_one_run_on_each_gpu(queue):
    put(queue, "seconds = 20", "seconds = 0.3", "seconds = 20", "")
    thread = threading.Thread(target=work, args=(queue,), kwargs={"gpus": ["0", "1"]})
    thread.start()
    until(lambda: any(line.startswith("3") for line in diary(queue)))
    time.sleep(0.3)
    assert sorted(diary(queue)) == ["1 begins 0", "2 begins 1", "2 ends 1", "3 begins 1"]
    assert states(queue) == ["started", "done", "started", "waiting"]
    (queue.folder / "go").touch()
    thread.join(30)
    assert states(queue) == ["done"] * 4


TWO, LONG = "num_processes = 2\n", "# seconds = 20\n"


@pytest.fixture
def at_work(queue):
    """Works a queue off beside the test; what it told, and a way to let all runs end."""
    threads = []

    def begin(**more):
        told = []
        worker = Worker(queue, tell=told.append, command=command, **more)
        threads.append(threading.Thread(target=worker.work))
        threads[-1].start()
        return told

    def end():
        (queue.folder / "go").touch()
        for thread in threads:
            thread.join(30)

    yield begin, end
    end()


def test_a_run_of_two_processes_gets_two_gpus_in_its_turn(queue, at_work):
    """One GPU gets free first; what stands behind does not take it, or the turn might not come."""
    put(queue, LONG, "# seconds = 0.3", TWO, "", LONG)
    begin, end = at_work
    told = begin(gpus=["0", "1"])
    until(lambda: any("run3: waits" in line for line in told))
    time.sleep(0.3)
    assert sorted(diary(queue)) == ["1 begins 0", "2 begins 1", "2 ends 1"]
    assert states(queue) == ["started", "done", "waiting", "waiting", "waiting"]
    [line] = [line for line in told if "waits" in line]
    assert line == (
        "3 run3: waits until 2 GPUs are free; what stands behind it waits, too, so that its turn "
        "comes (kit queue move 4 1 lets a run go first)"
    )
    end()
    lines = diary(queue)
    assert lines.index("3 begins 0,1") > lines.index("1 ends 0")
    assert lines.index("3 ends 0,1") < min(lines.index(f"{n} begins {n - 4}") for n in (4, 5))
    assert states(queue) == ["done"] * 5


def test_where_enough_are_free_runs_of_one_and_of_several_train_at_once(queue, at_work):
    put(queue, TWO + LONG, LONG, TWO + LONG, LONG)
    begin, end = at_work
    begin(gpus=["0", "1", "2", "5", "7"])
    until(lambda: len(diary(queue)) == 3)
    assert sorted(diary(queue)) == ["1 begins 0,1", "2 begins 2", "3 begins 5,7"]
    assert [entry.on_gpus for entry in queue.read().entries] == [
        " on GPUs 0 and 1", " on GPU 2", " on GPUs 5 and 7", ""
    ]  # fmt: skip
    lines = listed(queue, queue.read())
    assert "at work on GPUs 0 and 1" in lines[1]
    assert lines[2].endswith("at work on GPU 2")
    end()
    assert states(queue) == ["done"] * 4


def test_a_run_that_asks_for_more_gpus_than_there_are_fails_and_the_next_begins(queue):
    put(queue, "num_processes = 3", "", TWO)
    tally, told = work(queue, gpus=["0", "1"])
    assert tally.ended == {1: "failed", 2: "done", 3: "done"}
    assert queue.read().entries[0].note == (
        "it asks for 3 GPUs of this machine (num_processes), and the queue works with 2: set "
        "num_processes = 2, or give the queue more with kit queue run --gpus"
    )
    assert sum("1 run1: failed: it asks for 3 GPUs" in line for line in told) == 1
    retry(queue, [1])
    work(queue, gpus=["0", "1", "2"])
    assert states(queue) == ["done"] * 3


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("multi_gpu = true", "0,1,2"),  # all that the queue has
        ('multi_gpu = true\ngpu_ids = "4,7"', "0,1"),  # so many as it names
        ("num_processes = 4\nnum_machines = 2", "0,1"),  # the others are of the other machine
        ("no_setting_of_ours = 2", "0"),  # the run itself says what is wrong
    ],
)
def test_as_many_gpus_as_the_settings_ask_for_on_this_machine(queue, asked, got):
    put(queue, asked)
    work(queue, gpus=["0", "1", "2"])
    assert diary(queue) == [f"1 begins {got}", f"1 ends {got}"]


def test_a_run_of_two_processes_keeps_its_gpus_when_the_worker_is_killed(queue, worker):
    put(queue, TWO + LONG, "", "")
    first = worker("0", "1", "2")
    until(lambda: len(diary(queue)) == 5)
    kill(first)
    put(queue, TWO, LONG)
    second = worker("0", "1", "2")
    time.sleep(1.0)
    assert len(diary(queue)) == 5  # run 4 wants two, and one is free
    (queue.folder / "go").touch()
    assert second.wait(30) == 0
    assert "4 begins 0,1" in diary(queue)
    assert states(queue) == ["done"] * 5


def test_a_run_on_its_own_gpu_sees_that_one_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible("1") == "1"
    assert train_command(tmp_path, "1")[-2:] == ["--set", "gpu_ids="]  # it is number 0 there
    assert "--set" not in train_command(tmp_path, "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5")
    assert [visible("0"), visible("1")] == ["2", "GPU-5"]
    with pytest.raises(KitError, match="numbered from 0 to 1"):
        visible("2")


def test_a_second_worker_is_refused(queue):
    put(queue, "seconds = 20")
    thread = threading.Thread(target=work, args=(queue,))
    thread.start()
    until(lambda: diary(queue))
    with pytest.raises(KitError, match=f"worked off already \\(process {os.getpid()}\\)"):
        work(queue)
    (queue.folder / "go").touch()
    thread.join(30)
    assert diary(queue) == ["1 begins -", "1 ends -"]


# --------------------------------------------------------------------------- stop, pause, resume


def test_a_stop_reaches_the_runs_and_they_go_on_the_next_time(queue):
    put(queue, "seconds = 20", "")
    control, tallies = RunControl(), []
    thread = threading.Thread(target=lambda: tallies.append(work(queue, control=control)[0]))
    thread.start()
    until(lambda: diary(queue))
    control.stop()
    thread.join(30)
    assert tallies[0].stopped
    assert diary(queue) == ["1 begins -", "1 stopped -"]
    assert states(queue) == ["waiting", "waiting"]
    (queue.folder / "go").touch()
    work(queue)
    assert states(queue) == ["done", "done"]


def test_a_run_at_work_is_paused_while_the_next_begins(queue):
    put(queue, "seconds = 20", "")
    thread = threading.Thread(target=work, args=(queue,))
    thread.start()
    until(lambda: diary(queue))
    pause(queue, [1])
    thread.join(30)
    assert diary(queue) == ["1 begins -", "1 stopped -", "2 begins -", "2 ends -"]
    assert states(queue) == ["paused", "done"]
    work(queue)
    assert len(diary(queue)) == 4
    resume(queue, [1])
    (queue.folder / "go").touch()
    work(queue)
    assert states(queue) == ["done", "done"]


def test_a_paused_queue_begins_nothing_until_it_goes_on(queue):
    put(queue, "")
    pause(queue)
    told = []
    worker = Worker(queue, tell=told.append, command=command)
    thread = threading.Thread(target=worker.work)
    thread.start()
    until(lambda: told)
    time.sleep(0.3)
    assert diary(queue) == []
    assert told == ["The queue is paused, and 1 wait: kit queue resume lets it go on."]
    resume(queue)
    thread.join(30)
    assert states(queue) == ["done"]


def test_what_is_at_work_cannot_be_taken_out(queue):
    put(queue, "seconds = 20", "")
    thread = threading.Thread(target=work, args=(queue,))
    thread.start()
    until(lambda: diary(queue))
    with pytest.raises(KitError, match=r"Run 1 \(run1\) is at work"):
        remove(queue, [1])
    remove(queue, [2])
    (queue.folder / "go").touch()
    thread.join(30)
    assert [line[0] for line in diary(queue)] == ["1", "1"]


# ----------------------------------------------------------------------------------------- kills


@pytest.fixture
def worker(queue):
    """Starts workers as processes of their own, to be killed."""
    started = []

    def start(*gpus):
        process = subprocess.Popen(
            [sys.executable, "-c", WORK, str(queue.folder), *gpus],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield start
    (queue.folder / "go").touch()
    for process in started:
        process.kill()
        process.wait(20)


def kill(process):
    process.kill()
    process.wait(20)


def pid_of(queue, number):
    return who_is_at_work_in(queue.place(number))["pid"]


def test_a_run_goes_on_when_the_worker_is_killed_and_is_not_started_twice(queue, worker):
    put(queue, "seconds = 20", "")
    first = worker()
    until(lambda: diary(queue))
    kill(first)
    assert is_alive(queue.place(1))
    second = worker()
    time.sleep(1.5)
    assert diary(queue) == ["1 begins -"]
    (queue.folder / "go").touch()
    assert second.wait(30) == 0
    assert diary(queue) == ["1 begins -", "1 ends -", "2 begins -", "2 ends -"]
    assert states(queue) == ["done", "done"]


def test_how_a_run_ended_is_known_though_nobody_watched(queue, worker):
    put(queue, "seconds = 20\ncode = 1", "")
    first = worker()
    until(lambda: diary(queue))
    kill(first)
    (queue.folder / "go").touch()
    until(lambda: not is_alive(queue.place(1)))
    assert states(queue) == ["failed", "waiting"]


def test_a_run_that_was_killed_with_its_worker_is_made_again(queue, worker):
    put(queue, "seconds = 20")
    first = worker()
    until(lambda: diary(queue))
    kill(first)
    starter = pid_of(queue, 1)  # a machine that loses power ends all of them
    children = subprocess.run(
        ["pgrep", "-P", str(starter)], capture_output=True, text=True, check=True
    )
    os.kill(starter, signal.SIGKILL)
    os.kill(int(children.stdout), signal.SIGKILL)
    until(lambda: not is_alive(queue.place(1)))
    (queue.folder / "go").touch()
    work(queue)
    assert diary(queue) == ["1 begins -", "1 begins -", "1 ends -"]
    assert states(queue) == ["done"]


def test_a_run_whose_starter_was_killed_is_still_known_to_be_at_work(queue, worker):
    put(queue, "seconds = 20")
    first = worker()
    until(lambda: diary(queue))
    kill(first)
    os.kill(pid_of(queue, 1), signal.SIGKILL)
    time.sleep(0.2)
    assert is_alive(queue.place(1))
    assert states(queue) == ["started"]


def test_kills_at_any_moment_lose_no_run_and_start_none_twice(queue, worker):
    put(queue, *["seconds = 0.3"] * 4)
    for milliseconds in (350, 500, 650, 800, 950, 1200):
        process = worker()
        time.sleep(milliseconds / 1000)
        kill(process)
        queue.read()  # whole, always
    assert worker().wait(60) == 0
    assert states(queue) == ["done"] * 4
    assert diary(queue) == [f"{n} {word} -" for n in (1, 2, 3, 4) for word in ("begins", "ends")]


def test_a_run_whose_folder_was_deleted_fails_and_the_next_begins(queue):
    put(queue, "", "")
    shutil.rmtree(queue.place(1))
    tally, _ = work(queue)
    assert tally.ended == {1: "failed", 2: "done"}
    assert "could not be started" in queue.read().entries[0].note


def test_what_cannot_be_started_has_failed(queue):
    put(queue, "")
    tally = Worker(queue, tell=[].append, command=lambda place, gpu: ["/nowhere/python"]).work()
    assert tally.ended == {1: "failed"}
    assert "cannot be started" in (queue.place(1) / LOG).read_text("utf-8")
    assert "No such file" in queue.read().entries[0].note


def test_a_killed_run_is_said_to_be_killed(queue):
    put(queue, "")
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    Worker(queue, tell=[].append, command=lambda *_: [sys.executable, "-c", code]).work()
    assert queue.read().entries[0].note.startswith("it was killed by signal 9")
