"""Where the processes of a run leave their signs of life for each other: files in its folder.

<name>.run/ranks/1.json    {"rank": 1, "pid": 4711, "host": "a", "doing": "step 12", "beat": 8, ...}

Machines that share no folder find them elsewhere: `kit.processes.in_store`. A launcher reads the
files, where the first process cannot speak any more.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from kit.errors import Unreadable
from kit.processes.signs import Sign, sign_from
from kit.reading.texts import read_text

FOLDER = "ranks"  # in the run's folder
CACHE = "cache"  # in that: what they encode for each other


class Place(Protocol):
    """Where signs of life are put and found. Nobody who asks here waits for a network."""

    def put(self, sign: Sign, *, at_once: bool = False) -> None:
        """Leave our own. at_once: it is our last, and what follows may wait a moment for it."""

    def found(self, rank: int) -> Sign | None:
        """The last one of a process; None where there is none, or none any more."""

    def seen_at(self) -> float:
        """Until when, by our own clock, what is `found` is what stands there."""

    def renew(self, seconds: float) -> None:
        """Find anew what stands there; wait so long for it at most."""


class Folder:
    """The files of a run's folder."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._found: dict[int, Sign] = {}  # while somebody writes, what stood there before

    def put(self, sign: Sign, *, at_once: bool = False) -> None:
        """Write our own anew."""
        path = path_of(self._run_dir, sign.rank)
        with suppress(OSError):  # the folder may be gone: a sign is no need
            part = path.with_suffix(".part")
            part.write_text(sign.to_text(), "utf-8")
            part.replace(path)

    def found(self, rank: int) -> Sign | None:
        """The last one of a process; None where its file was deleted, as a rule with the folder."""
        sign = read_one(path := path_of(self._run_dir, rank))
        if sign is None and not path.exists():
            self._found.pop(rank, None)
        if sign is not None:
            self._found[rank] = sign
        return self._found.get(rank)

    def seen_at(self) -> float:
        """A file is read when it is asked for."""
        return time.monotonic()

    def renew(self, seconds: float) -> None:
        """It always is."""


def path_of(run_dir: Path, rank: int) -> Path:
    """The file of a process."""
    return run_dir / FOLDER / f"{rank}.json"


def read(run_dir: Path) -> list[Sign]:
    """The last sign of every process that is known in a run's folder."""
    with suppress(OSError):
        numbers = sorted(int(p.stem) for p in (run_dir / FOLDER).glob("*.json") if p.stem.isdigit())
        return [sign for rank in numbers if (sign := read_one(path_of(run_dir, rank)))]
    return []


def read_one(path: Path) -> Sign | None:
    """What stands in a file, where that is a whole sign."""
    try:
        return sign_from(read_text(path), path.name)
    except Unreadable:
        return None


def clear(run_dir: Path) -> None:
    """Make the folder, without what processes of an earlier start have left."""
    with suppress(OSError):
        shutil.rmtree(run_dir / FOLDER, ignore_errors=True)
        (run_dir / FOLDER).mkdir()


def make_own(run_dir: Path, first: Sign) -> bool:
    """Make the folder on a machine that does not share it with process 0; whether that was so.

    first: the sign of process 0, by another way than the folder. What an earlier start has left
    goes; others of this machine may have begun to write already, and do so again in a second.
    """
    there = read_one(path_of(run_dir, first.rank))
    if there is not None and there.is_of(first):
        return False
    with suppress(OSError):
        (run_dir / FOLDER).mkdir(parents=True, exist_ok=True)
        for path in (run_dir / FOLDER).glob("*.json"):
            path.unlink(missing_ok=True)
    return True


def tidy(run_dir: Path, *, well: bool) -> None:
    """It is over: take away what the processes shared, and their signs where all is well.

    A run that did not even begin has given its folder back; who encoded pictures still may have
    made it anew.
    """
    with suppress(OSError):
        given_back = [path.name for path in run_dir.iterdir()] == [FOLDER]
        gone = run_dir / FOLDER if well or given_back else run_dir / FOLDER / CACHE
        shutil.rmtree(gone, ignore_errors=True)
        if given_back:
            run_dir.rmdir()


def leave_own(run_dir: Path, rank: int, *, well: bool) -> None:
    """A process leaves its machine's own folder: the last one that ends well tidies it.

    Why one did not end well stays, for its launcher to read.
    """
    if not well:
        return
    with suppress(OSError):
        path_of(run_dir, rank).unlink(missing_ok=True)
        if not any((run_dir / FOLDER).glob("*.json")):
            tidy(run_dir, well=True)
