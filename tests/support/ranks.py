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

import torch

import kit
from kit import planning
from kit.errors import KitError
from kit.events import Event, Finished
from kit.settings import Settings

LONGEST = 100.0  # seconds after which one hangs


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
    port, began, pids = _free_port(), time.monotonic(), []
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


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
