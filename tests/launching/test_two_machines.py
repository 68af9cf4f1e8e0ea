"""`kit train` on two machines that share no folder, where one of the two processes is lost.

Both are this one, under two names: neither may look at the other's processes or files. They meet
through the store that the launcher of the first one keeps, as accelerate arranges it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import kit
from kit.events import Failed, Stepped
from kit.launching.command import OF_A_LAUNCH
from kit.processes import heartbeats, places
from kit.sinks import read_events
from tests.support.ranks import free_port
from tests.support.tiny import write_tiny
from tests.support.toys import toy_settings

pytestmark = [pytest.mark.slow, pytest.mark.long]
ROOT = Path(kit.__file__).parents[1]
PATIENCE = 240  # seconds; a busy machine takes long to load torch four times
# Each process has the name of its machine, and at SIGUSR1 an error of its own.
CUSTOM = """
import signal
import socket

socket.gethostname = lambda: {!r}


def fail(number, frame):
    raise ValueError("the cable is out")


signal.signal(signal.SIGUSR1, fail)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


class Machine:
    """A launch in a folder of its own."""

    def __init__(self, place, number, port, model, images):
        self.place, self.run_dir = place, place / "out" / "toy.run"
        shutil.copytree(model, place / "model")
        shutil.copytree(images, place / "images")
        (place / "names").mkdir()
        (place / "names" / "sitecustomize.py").write_text(CUSTOM.format(f"machine{number}"))
        flags = f"--machine_rank {number} --main_process_ip 127.0.0.1"
        settings = toy_settings(Path("model"), Path("images"), Path("out")).replace(
            max_train_steps=5000,
            cache_latents=False,
            num_processes=2,
            num_machines=2,
            main_process_port=port,
            extra_accelerate_launch_args=flags,
        )
        (place / "run.toml").write_text(settings.to_toml(with_help=False))
        self.log = (place / "log.txt").open("w+", encoding="utf-8")
        environment = {k: v for k, v in os.environ.items() if k not in OF_A_LAUNCH}
        path = {"PYTHONPATH": f"{place / 'names'}:{ROOT}", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kit", "train", "run.toml"],
            cwd=place,
            env=environment | path,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    @property
    def said(self):
        return Path(self.log.name).read_text("utf-8")

    def events(self):
        file = self.run_dir / "events.jsonl"
        return read_events(file) if file.exists() else []


@pytest.fixture
def machines(tmp_path, model, images):
    """Both at work, once a step is made."""
    port = free_port()
    both = [Machine(tmp_path / f"machine{n}", n, port, model, images) for n in range(2)]
    until = time.monotonic() + PATIENCE
    while not any(isinstance(event, Stepped) for event in both[0].events()):
        assert all(each.process.poll() is None for each in both), [each.said for each in both]
        assert time.monotonic() < until
        time.sleep(0.2)
    time.sleep(2 * heartbeats.PERIOD)
    family = [psutil.Process(each.process.pid) for each in both]
    family += [child for each in family for child in each.children(recursive=True)]
    yield both
    for each in family:
        if each.is_running():
            each.kill()
    for machine in both:
        machine.process.wait(20)
        machine.log.close()


LOST = [
    (signal.SIGKILL, "ended", 30),
    (signal.SIGUSR1, "failed", 30),
    (signal.SIGSTOP, "hangs", 60),
]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("number", "words", "seconds"), LOST)
def test_a_process_that_is_lost_on_one_machine_is_named_on_the_other(
    machines, rank, number, words, seconds
):
    lost, other = machines[rank], machines[1 - rank]
    (sign,) = places.read(lost.run_dir)  # each machine knows its own processes only
    assert sign.host == f"machine{rank}"
    assert [own.rank for own in places.read(other.run_dir)] == [1 - rank]
    os.kill(sign.pid, number)
    began = time.monotonic()
    code = other.process.wait(PATIENCE)
    took = time.monotonic() - began
    print(f"process {rank} {words}: the command of the other machine ended after {took:.1f} s")
    assert code == 2, other.said
    who = f"Process {rank}( of 2)?" if number == signal.SIGUSR1 else re.escape(sign.name)
    told = re.compile(
        f"{who} {words} " + (".*the cable is out" if number == signal.SIGUSR1 else "")
    )
    assert told.search(other.said), other.said
    if rank == 1:
        last = other.events()[-1]
        assert isinstance(last, Failed)
        assert told.match(last.text)
    else:
        assert told.match(places.read(other.run_dir)[0].words)
        assert not other.events()
    if number == signal.SIGSTOP:
        os.kill(sign.pid, signal.SIGCONT)  # then it hears of it
    assert lost.process.wait(PATIENCE) == 2, lost.said
    assert took < seconds
