"""How many processes there are, as the environment says; and their signs of life."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from kit.errors import DeviceError
from kit.processes import Processes, heartbeats, here, places, require_all, signs

MANY = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_PORT": "29500"}


def test_the_environment_says_who_this_process_is():
    assert here({}) == Processes(1, 0, 0)
    assert here(MANY) == Processes(4, 3, 1)
    assert here({"WORLD_SIZE": "", "RANK": " "}).is_first
    assert not here(MANY).is_first


@pytest.mark.parametrize(
    "environment",
    [{"WORLD_SIZE": "two"}, {"WORLD_SIZE": "0"}, {"WORLD_SIZE": "2", "RANK": "2"}],
)
def test_nonsense_is_refused(environment):
    with pytest.raises(DeviceError, match="no number of processes"):
        here(environment)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"MASTER_PORT": "29500"}, "Several processes were asked for, and only one started"),
        ({"LORA_KIT_PROCESSES": "2"}, "2 processes were asked for, and only one started"),
        (MANY | {"LORA_KIT_PROCESSES": "8"}, "8 processes were asked for, and 4 started"),
    ],
)
def test_fewer_than_asked_for_are_refused_with_the_command(environment, words):
    with pytest.raises(DeviceError) as error:
        require_all(0, environment)
    assert words in str(error.value)
    assert "accelerate launch --multi_gpu --num_processes" in str(error.value)


def test_a_plan_for_more_is_not_trained_by_fewer():
    with pytest.raises(DeviceError, match="2 processes were asked for, and only one started"):
        require_all(2, {})
    require_all(4, MANY)
    require_all(1, {})


@pytest.mark.parametrize("environment", [{}, MANY, MANY | {"LORA_KIT_PROCESSES": "4"}])
def test_as_many_as_asked_for_may_train(environment):
    require_all(0, environment)


@pytest.mark.parametrize(
    ("name", "what"), [("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"), ("ACCELERATE_USE_FSDP", "FSDP")]
)
def test_what_divides_the_weights_is_refused(name, what):
    with pytest.raises(DeviceError, match=f"asks for {what}"):
        require_all(0, MANY | {name: "true"})
    require_all(0, MANY | {name: "false"})


@pytest.fixture
def run_dir(tmp_path):
    places.clear(tmp_path)
    return tmp_path


def sign(run_dir, rank, **more):
    known = {"rank": rank, "pid": os.getpid(), "host": socket.gethostname(), "doing": "step 3"}
    places.path_of(run_dir, rank).write_text(json.dumps({**known, "beat": 1, **more}))


def watching(run_dir, *ranks):
    return heartbeats.Watch([places.Folder(run_dir)], ranks)


def beating(run_dir):
    return heartbeats.Heart(1, [places.Folder(run_dir)])


def test_a_heart_says_what_it_is_at_and_why_it_ended(run_dir):
    heart = beating(run_dir)
    heart.doing = "step 8"
    heart.last_words("the cable is out")
    heart.stop()
    (told,) = places.read(run_dir)
    assert (told.rank, told.pid, told.doing) == (1, os.getpid(), "step 8")
    assert watching(run_dir, 1).lost() == "Process 1 failed at step 8: the cable is out"


def test_a_sign_that_stands_still_is_that_of_a_process_that_hangs(run_dir, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(heartbeats.time, "monotonic", lambda: now[0])
    watch = watching(run_dir, 1, 2)
    sign(run_dir, 1)
    sign(run_dir, 2, doing="loading")
    assert watch.lost() == ""
    now[0] += heartbeats.SILENT - 1
    assert watch.lost() == ""
    sign(run_dir, 1, beat=2)
    now[0] += 2
    assert watch.lost() == ""
    now[0] += heartbeats.SILENT + 1
    assert (
        f"hangs at step 3: it gave no sign of life for {heartbeats.SILENT + 1:.0f} s"
        in watch.lost()
    )


def test_between_two_steps_beats_come_too_and_who_was_told_to_hang_lives_no_more(
    run_dir, monkeypatch
):
    """Else who waits for process 0 would do so for 40 s, and 20 s more for its last words."""
    now = [100.0]
    monkeypatch.setattr(heartbeats.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(heartbeats, "_given_up", {})
    sign(run_dir, 0, doing="behind step 3")
    watch = watching(run_dir, 0)
    assert watch.lost() == ""
    now[0] += heartbeats.SILENT + 1
    assert "hangs while it was behind step 3" in watch.lost()
    sign(run_dir, 0, doing="writing a file")  # which may hold every thread
    assert watch.lost() == ""
    now[0] += heartbeats.SILENT + 1
    assert watch.lost() == ""
    assert "hangs while it was writing a file" in watch.late(40.0)
    assert not watch.lives(0)


def test_a_machine_that_slept_is_no_reason(run_dir, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(heartbeats.time, "monotonic", lambda: now[0])
    watch = watching(run_dir, 1)
    sign(run_dir, 1)
    watch.lost()
    now[0] += 3600
    watch.begin()  # it begins to wait only now
    assert watch.lost() == ""


def test_a_process_that_is_gone_is_named(run_dir):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    sign(run_dir, 1, pid=child)
    assert f"Process 1 (pid {child}) ended at step 3" in watching(run_dir, 1).lost()
    sign(run_dir, 1, pid=child, host="elsewhere")  # nobody can tell from here
    assert watching(run_dir, 1).lost() == ""


def test_half_a_sign_is_none(run_dir):
    places.path_of(run_dir, 1).write_text('{"rank": 1, "pi')
    assert places.read(run_dir) == []
    assert watching(run_dir, 1).lost() == ""


def test_who_has_no_place_for_a_sign_is_not_silent(run_dir, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(heartbeats.time, "monotonic", lambda: now[0])
    watch = watching(run_dir, 1)
    sign(run_dir, 1)
    assert watch.lost() == ""
    assert watch.lives(1)
    shutil.rmtree(run_dir / places.FOLDER)  # by a person, with the run's folder
    now[0] += heartbeats.SILENT + 1
    assert watch.lost() == ""
    assert not watch.lives(1)
    places.clear(run_dir)
    sign(run_dir, 1)
    assert watch.lives(1)
    now[0] += heartbeats.SILENT + 1
    assert "hangs" in watch.lost()
    assert not watch.lives(1)


@pytest.mark.parametrize("well", [True, False])
def test_what_processes_shared_goes_in_the_end_and_a_folder_given_back_stays_away(run_dir, well):
    cache = run_dir / places.FOLDER / places.CACHE
    cache.mkdir()
    sign(run_dir, 1)
    (run_dir / "run.json").write_text("{}")
    places.tidy(run_dir, well=well)
    assert not cache.exists()
    assert bool(places.read(run_dir)) is not well  # why it failed is for the launcher
    assert (run_dir / "run.json").exists()
    (run_dir / "run.json").unlink()
    cache.mkdir(parents=True)
    places.tidy(run_dir, well=well)
    assert not run_dir.exists()


# --------------------------------------------------------------------------- one that hangs, ended


@pytest.fixture
def stopped():
    """A process of this machine that hears nothing, not even a polite signal."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    process.send_signal(signal.SIGSTOP)
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait(20)


def told_to_hang(run_dir, monkeypatch, process, **more):
    """What somebody finds who waits for it, and its end."""
    now = [1000.0]
    monkeypatch.setattr(heartbeats, "_given_up", {})
    born = psutil.Process(process.pid).create_time()
    sign(run_dir, 1, pid=process.pid, **{"born": born} | more)
    watch = watching(run_dir, 1)
    with monkeypatch.context() as patched:
        patched.setattr(heartbeats.time, "monotonic", lambda: now[0])
        assert watch.lost() == ""
        now[0] += heartbeats.SILENT + 1
        assert "hangs at step 3" in watch.lost()


def test_one_that_hangs_is_ended_by_who_has_told_it(run_dir, monkeypatch, stopped):
    told_to_hang(run_dir, monkeypatch, stopped)
    heartbeats.end_given_up()
    assert stopped.wait(20) == -signal.SIGKILL


def test_one_that_stood_still_before_it_could_say_that_it_steps_is_named_and_ended(
    run_dir, monkeypatch, stopped
):
    """Its last sign says that it loads, where more silence is allowed; but the others step."""
    now = [1000.0]
    monkeypatch.setattr(heartbeats, "_given_up", {})
    sign(
        run_dir, 1, pid=stopped.pid, born=psutil.Process(stopped.pid).create_time(), doing="loading"
    )
    sign(run_dir, 2, doing="loading")
    watch = watching(run_dir, 1, 2)
    with monkeypatch.context() as patched:
        patched.setattr(heartbeats.time, "monotonic", lambda: now[0])
        watch.begin()
        watch.signs()
        now[0] += heartbeats.SILENT + 10
        sign(run_dir, 2, doing="loading", beat=2)
        told = watch.late(40.0)
        assert watch.lost() == told  # this machine sees that it stands still
        assert told.startswith(f"Process 1 (pid {stopped.pid} on {socket.gethostname()}) hangs")
        assert "while it was loading: it gave no sign of life for 40 s" in told
    heartbeats.end_given_up()
    assert stopped.wait(20) == -signal.SIGKILL


@pytest.mark.parametrize(
    "more",
    [{"born": 1.0e9}, {"born": 0.0}, {"host": "elsewhere"}],
    ids=["another process has its number", "of an older version", "of another machine"],
)
def test_nobody_else_is_ended(run_dir, monkeypatch, stopped, more):
    told_to_hang(run_dir, monkeypatch, stopped, **more)
    heartbeats.end_given_up()
    assert psutil.Process(stopped.pid).status() == psutil.STATUS_STOPPED


def test_one_that_gives_a_sign_again_is_left_alone(run_dir, monkeypatch, stopped):
    told_to_hang(run_dir, monkeypatch, stopped)
    sign(run_dir, 1, pid=stopped.pid, born=psutil.Process(stopped.pid).create_time(), beat=2)
    heartbeats.end_given_up()
    assert psutil.Process(stopped.pid).status() == psutil.STATUS_STOPPED


def test_a_heart_says_when_its_process_was_started(run_dir):
    beating(run_dir).stop()
    (told,) = places.read(run_dir)
    assert told.born == pytest.approx(psutil.Process().create_time(), abs=1.5)
    assert not signs.kill(told)  # not ourselves
