"""A training in several processes over gloo, forked from one that has imported everything."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

import kit
from kit import planning
from kit.errors import KitError
from kit.events import Event, Finished, Stepped
from kit.runs.control_files import leave
from kit.settings import Settings
from kit.sinks import read_events
from kit.training.step import TrainingStep

LONGEST = 100.0  # seconds after which one hangs
GATHERED = {"gradient_accumulation_steps": 2}  # what two processes do together, in one


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, a signal below zero, None where it hung; its words."""

    status: int | None
    said: str
    seconds: float


def train_in(
    count: int,
    settings: Settings,
    log: Path,
    *,
    prepare: Callable[[int], object] = lambda rank: None,
    hear: Callable[[Event], object] = lambda _: None,
    kill: Callable[[list[int]], object] = lambda pids: None,
) -> list[Ended]:
    """Train in so many processes, as a launcher would start them.

    prepare(rank) sets a fault in each; hear(event) is called in the first for every event;
    kill(pids) is called here, again and again.
    """
    log.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    port, began, pids = free_port(), time.monotonic(), []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            _live(count, rank, port, settings, log / f"{rank}.txt", prepare, hear)
        pids.append(child)
    ends: dict[int, tuple[int | None, float]] = {}
    while len(ends) < count:
        kill(pids)
        for pid in set(pids) - ends.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                ends[pid] = os.waitstatus_to_exitcode(status), time.monotonic() - began
            elif time.monotonic() - began > LONGEST:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                ends[pid] = None, LONGEST
        time.sleep(0.02)
    said = [(log / f"{rank}.txt").read_text("utf-8", errors="replace") for rank in range(count)]
    return [Ended(ends[p][0], words, ends[p][1]) for p, words in zip(pids, said, strict=True)]


def _live(
    count: int,
    rank: int,
    port: int,
    settings: Settings,
    log: Path,
    prepare: Callable[[int], object],
    hear: Callable[[Event], object],
) -> None:
    """A process's whole life; it never returns."""
    status = 1
    try:
        torch.set_num_threads(1)
        file = log.open("w", encoding="utf-8", buffering=1)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        which = {"WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank}
        os.environ |= where | {name: str(number) for name, number in which.items()}
        prepare(rank)
        last: Event | None = None
        for event in kit.train(planning.plan(settings)):
            print(event, flush=True)
            hear(event)
            last = event
        assert rank or isinstance(last, Finished)
        status = 0
    except KitError as error:
        print(f"told: {error}", flush=True)
        status = 2
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# --------------------------------------------------------------------------- what tests of it need


def told(out):
    return read_events(out / "toy.run" / "events.jsonl")


def in_processes(count, settings, out, **more):
    """What it told, when every process has ended well."""
    ended = train_in(count, settings, out / "logs", **more)
    assert [each.status for each in ended] == [0] * count, ended
    return told(out)


def asks(out, wishes):
    """At the steps that are given, what a person asks by `kit control`."""

    def hear(event):
        if isinstance(event, Stepped):
            for asked in wishes.get(event.step, ()):
                leave(out / "toy.run", asked)

    return hear


def breaking(numbers, spoil):
    """Some micro-steps' losses come out otherwise, in whichever process makes them."""

    def prepare(rank):
        whole, seen = TrainingStep.loss, set()

        def loss(self, batch):
            if batch.micro_step in numbers and batch.micro_step not in seen:
                seen.add(batch.micro_step)
                return spoil(whole(self, batch))
            return whole(self, batch)

        TrainingStep.loss = loss

    return prepare


def once(call, at, error):
    """The call, which fails at that time, once."""
    seen = []

    def made(*arguments, **named):
        seen.append(1)
        if len(seen) == at:
            raise error
        return call(*arguments, **named)

    return made


class At:
    """Sends a signal to one process, once the run has come to a step."""

    def __init__(self, out, step, rank, number):
        self.out, self.step, self.rank, self.number = out, step, rank, number
        self.at = 0.0

    def __call__(self, pids):
        if self.at:
            if self.number == signal.SIGSTOP and time.monotonic() - self.at > 8:
                os.kill(pids[self.rank], signal.SIGKILL)
            return
        events = self.out / "toy.run" / "events.jsonl"
        if events.exists() and f'"Stepped", "step": {self.step},' in events.read_text("utf-8"):
            self.at = time.monotonic()
            os.kill(pids[self.rank], self.number)


class Later:
    """A process that stands still is killed in the end, so that the test's own are gone."""

    def __init__(self, rank):
        self.rank, self.since = rank, 0.0

    def __call__(self, pids):
        is_still = psutil.Process(pids[self.rank]).status() == psutil.STATUS_STOPPED
        if is_still and not self.since:
            self.since = time.monotonic()
        if self.since and time.monotonic() - self.since > 12:
            os.kill(pids[self.rank], signal.SIGKILL)
