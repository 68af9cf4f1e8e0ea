"""`kit train` with two real processes over gloo: a stop, and an end that nobody could tell of."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from kit.events import Failed, Finished, Stepped
from kit.launching.command import OF_A_LAUNCH
from kit.processes import places
from kit.sinks import read_events
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, toy_settings

pytestmark = pytest.mark.slow
PATIENCE = 240  # seconds; a busy machine takes long to load torch three times


@pytest.fixture
def toml(tmp_path):
    model = write_tiny(tmp_path / "model", "sd1", thin=True)
    settings = toy_settings(
        model, draw_images(tmp_path / "images"), tmp_path / "out",
        max_train_steps=5000, output_name="cat", num_processes=2,
    )  # fmt: skip
    (tmp_path / "run.toml").write_text(settings.to_toml(with_help=False), "utf-8")
    return tmp_path / "run.toml"


@pytest.fixture
def training(toml):
    """The command, once its first step is made."""
    environment = {k: v for k, v in os.environ.items() if k not in OF_A_LAUNCH}
    process = subprocess.Popen(
        [sys.executable, "-m", "kit", "train", str(toml)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + PATIENCE
    while not any(isinstance(event, Stepped) for event in told(toml)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.2)
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    yield process
    for each in family:
        if each.is_running() if each is not process else each.poll() is None:
            each.kill()
    process.stdout.close()


def told(toml):
    file = toml.parent / "out" / "cat.run" / "events.jsonl"
    return read_events(file) if file.exists() else []


def test_ctrl_c_stops_both_at_one_step_with_the_exit_code_of_a_stop(toml, training):
    os.killpg(training.pid, signal.SIGINT)  # as a terminal sends it
    out, _ = training.communicate(timeout=PATIENCE)
    assert training.returncode == 3, out
    last = told(toml)[-1]
    assert isinstance(last, Finished)
    assert last.reason == "asked to stop"
    assert "2 processes: global batch" in out


@pytest.mark.long  # with a stand-in: tests/cli/test_launching.py, "dies"
def test_where_all_were_killed_the_command_says_so_and_who_looks_later_knows(toml, training):
    for each in psutil.Process(training.pid).children(recursive=True):
        each.kill()
    out, _ = training.communicate(timeout=PATIENCE)
    assert training.returncode == 2
    last = told(toml)[-1]
    assert isinstance(last, Failed)
    assert last.text.startswith("Process 0 (pid ")
    assert "ended without a word" in last.text
    assert f"kit: {last.text}" in out


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_stopped_is_named_and_ended_by_the_other(toml, training, rank):
    """torchrun alone would wait 30 s more: a stopped process hears no polite signal."""
    pids = {sign.rank: sign.pid for sign in places.read(toml.parent / "out" / "cat.run")}
    os.kill(pids[rank], signal.SIGSTOP)
    began = time.monotonic()
    out, _ = training.communicate(timeout=PATIENCE)
    assert training.returncode == 2, out
    last = told(toml)[-1]
    assert isinstance(last, Failed)
    assert f"Process {rank} (pid {pids[rank]}" in last.text
    assert " hangs " in last.text
    assert not psutil.pid_exists(pids[rank])
    assert "Unable to shutdown process" not in out  # as torchrun says after its 30 s
    assert time.monotonic() - began < 60  # 34 to 36 s; 42 with a tenth of a core for all of them
