"""A training in a process of its own, with a fault in it.

A child is forked from a parent that has imported everything, so that one costs no start-up. It ends
with 0 when it is done, 2 after an error in words, 3 when it was asked to stop, 1 with a traceback,
or by a signal. What it says lies in its log.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import kit
from kit import planning
from kit.errors import KitError
from kit.events import Event, Finished
from kit.settings import Settings
from kit.training import engine_choice
from tests.support.recorded_calls import RecordedCalls

LONGEST = 120.0  # seconds after which a child hangs


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit status, or a signal below zero; None where it hung."""

    status: int | None
    seconds: float
    said: str


def in_child(
    settings: Settings,
    log: Path,
    *,
    prepare: Callable[[], object] = lambda: None,
    hear: Callable[[Event], object] = lambda _: None,
    kill_after: float | None = None,
    kill_with: int = signal.SIGKILL,
) -> Outcome:
    """Train in a child: prepare() sets its fault, hear(event) is called for every event.

    kill_after: seconds after which it gets the signal `kill_with`.
    """
    began = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _live(settings, log, prepare, hear)
    status = _waited(child, began, kill_after, kill_with)
    return Outcome(status, time.monotonic() - began, log.read_text("utf-8", errors="replace"))


def _live(
    settings: Settings,
    log: Path,
    prepare: Callable[[], object],
    hear: Callable[[Event], object],
) -> None:
    """The child's whole life; it never returns."""
    status = 1
    try:
        torch.set_num_threads(1)
        file = log.open("w", encoding="utf-8", buffering=1)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        engine_choice.recorder_for = lambda device: RecordedCalls()
        prepare()
        last: Event | None = None
        for event in kit.train(planning.plan(settings)):
            print(event, flush=True)
            hear(event)
            last = event
        assert isinstance(last, Finished)
        status = 0 if last.reason == "done" else 3
    except KitError as error:
        print(f"told: {error}", flush=True)
        status = 2
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _waited(child: int, began: float, kill_after: float | None, kill_with: int) -> int | None:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        lived = time.monotonic() - began
        if kill_after is not None and lived >= kill_after:
            os.kill(child, kill_with)
            kill_after = None
        if lived > LONGEST:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)


WRITES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate")


class Accesses:
    """Counts what a process does to the files below a folder, and acts at the k-th of it.

    Python tells its audit hooks before it opens, renames or removes: an error raised there is the
    error of that call.
    """

    def __init__(self, folder: Path, at: int = 0, act: Callable[[str], object] | None = None):
        self.folder, self.at, self.act = os.fspath(folder), at, act
        self.count = 0

    def watch(self) -> None:
        """From now to the end of the process."""
        sys.addaudithook(self._heard)

    def _heard(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name not in WRITES or not arguments:
            return
        path = arguments[0]
        if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(self.folder):
            return
        if name == "open" and not _writes(arguments):
            return
        self.count += 1
        if self.act and self.count >= self.at:
            self.act(f"{name} {path}")


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = (*arguments[1:3], None, None)[:2]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))


def die(where: str) -> None:
    """The process is gone, as after kill -9."""
    print(f"killed at {where}", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int) -> Callable[[str], None]:
    """From now on whoever writes is told this error number; removing still works."""

    def act(where: str) -> None:
        if where.startswith(("open", "os.mkdir", "os.rename")):
            raise OSError(number, os.strerror(number), where.split(" ", 1)[1])

    return act


FULL, READ_ONLY = errno.ENOSPC, errno.EROFS
