"""Signs of life of the processes of one run: a file for each, with its last words.

<name>.run/ranks/1.json    {"rank": 1, "pid": 4711, "host": "a", "doing": "step 12", "beat": 8, ...}

A thread writes it anew every second, so what stands still or is gone leaves an old file. Whoever
waits for another process looks there: only so a process that hangs can be named. `words` is what
ended it. Needs no torch: a launcher reads the files where the first process cannot speak any more.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.errors import Unreadable
from kit.reading.fields import dataclass_from
from kit.reading.texts import read_json

FOLDER = "ranks"  # in the run's folder
CACHE = "cache"  # in that: what they encode for each other
PERIOD = 1.0  # seconds between two beats
SILENT = 30.0  # seconds without a beat while it steps
SAME_BIRTH = 2.0  # seconds; kernels tell the time of their own start to one or two
SILENT_ELSEWHERE = 300.0  # while it loads or caches: reading a model can hold every thread


@dataclass(frozen=True)
class Sign:
    """What a process last said of itself."""

    rank: int
    pid: int
    host: str
    doing: str = ""
    beat: int = 0
    words: str = ""  # what ended it
    born: float = 0.0  # when it was started: a number may be another process's meanwhile

    @property
    def steps(self) -> bool:
        """It is in the middle of a step."""
        return self.doing.startswith("step")

    @property
    def most_silence(self) -> float:
        """Seconds after which it hangs, by what it is at."""
        beats = self.steps or self.doing.startswith("waiting")
        return SILENT if beats else SILENT_ELSEWHERE


def path_of(run_dir: Path, rank: int) -> Path:
    """The file of a process."""
    return run_dir / FOLDER / f"{rank}.json"


def read(run_dir: Path) -> list[Sign]:
    """The last sign of every process that is known in a run's folder."""
    with suppress(OSError):
        numbers = sorted(int(p.stem) for p in (run_dir / FOLDER).glob("*.json") if p.stem.isdigit())
        return [sign for number in numbers if (sign := _read(path_of(run_dir, number)))]
    return []


def clear(run_dir: Path) -> None:
    """Make the folder, without what processes of an earlier start have left."""
    with suppress(OSError):
        shutil.rmtree(run_dir / FOLDER, ignore_errors=True)
        (run_dir / FOLDER).mkdir()


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


def _read(path: Path) -> Sign | None:
    try:
        return dataclass_from(Sign, read_json(path), path.name)
    except Unreadable:
        return None


class Heart:
    """Beats for this process, from a thread of its own; `doing` is what it is at."""

    def __init__(self, run_dir: Path, rank: int) -> None:
        self._path, self.doing, self._rank = path_of(run_dir, rank), "loading", rank
        self._beats = 0
        self._born = _born(os.getpid())
        self._words = ""
        self._writing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def last_words(self, words: str) -> None:
        """Say what ends this process."""
        self._words = words
        self._write()

    def stop(self) -> None:
        """No further beat."""
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        self._write()
        while not self._over.wait(PERIOD):
            self._write()

    def _write(self) -> None:
        with self._writing, suppress(OSError):  # the folder may be gone: a sign is no need
            self._beats += 1
            who = self._rank, os.getpid(), socket.gethostname()
            sign = Sign(*who, self.doing, self._beats, self._words, self._born)
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(asdict(sign)), "utf-8")
            part.replace(self._path)


_given_up: dict[Path, Sign] = {}  # by their files: those who hang, as this process has told


class Watch:
    """Looks after the others, while this process waits for them."""

    def __init__(self, run_dir: Path, others: Iterable[int]) -> None:
        self._run_dir, self._others = run_dir, tuple(others)
        self._seen: dict[int, tuple[Sign, float]] = {}  # since when, by our own clock

    def signs(self) -> list[Sign]:
        """The last that is known of each."""
        self._look()
        return [sign for sign, _ in self._seen.values()]

    def lives(self, rank: int) -> bool:
        """It gives signs of life."""
        self._look()
        sign, since = self._seen.get(rank, (None, 0.0))
        return bool(sign and not is_gone(sign) and time.monotonic() - since <= sign.most_silence)

    def lost(self) -> str:
        """Which of them is lost and why, as a sentence; "" where all are alive.

        Our own clock decides how old a sign is: a machine that slept, or another one's clock, are
        no reason.
        """
        self._look()
        for sign, _ in self._seen.values():
            if sign.words:
                return f"Process {sign.rank} failed {_at(sign)}: {sign.words}"
        for sign, since in self._seen.values():
            if is_gone(sign):
                return (
                    f"Process {sign.rank} (pid {sign.pid}) ended {_at(sign)} without a word: it "
                    "was killed, by a person or because the machine had no memory left"
                )
            silence = time.monotonic() - since
            if silence > sign.most_silence:
                return self._hangs(sign, silence)
        return ""

    def _hangs(self, sign: Sign, silence: float) -> str:
        """It does; whoever asks ends with this answer."""
        _given_up[path_of(self._run_dir, sign.rank)] = sign
        return (
            f"Process {sign.rank} (pid {sign.pid} on {sign.host}) hangs {_at(sign)}: it gave no "
            f"sign of life for {silence:.0f} s"
        )

    def late(self, seconds: float) -> str:
        """Who does not come to where the others wait; who gives signs of life may still do so.

        A sign may be from before the step, such as "loading": there is nothing to load any more.
        """
        self._look()
        for sign, since in self._seen.values():
            if (silence := time.monotonic() - since) > SILENT:
                return self._hangs(sign, silence)
        busy = [f"process {sign.rank} at {sign.doing or 'nothing'}" for sign in self.signs()]
        where = f" ({'; '.join(busy)})" if busy else ""
        return f"A process hangs: its part did not come for {seconds:.0f} s{where}"

    def begin(self) -> None:
        """Nobody looked for a while: what is old counts from now."""
        now = time.monotonic()
        self._seen = {rank: (sign, now) for rank, (sign, _) in self._seen.items()}

    def _look(self) -> None:
        for rank in self._others:
            sign = _read(path := path_of(self._run_dir, rank))
            if sign is None and not path.exists():  # with its folder: no sign is no silence
                self._seen.pop(rank, None)
            if sign and (rank not in self._seen or self._seen[rank][0] != sign):
                self._seen[rank] = (sign, time.monotonic())


def _at(sign: Sign) -> str:
    return f"at {sign.doing}" if sign.steps else f"while it was {sign.doing}"


def end_given_up() -> None:
    """Kill what this process has told to hang, where it is of this machine; the last thing it does.

    A launcher asks politely first and waits: torchrun 30 s, which one that is stopped cannot hear.
    Who gives a sign again is left alone.
    """
    for path, sign in _given_up.items():
        if _read(path) == sign:
            kill(sign)
    _given_up.clear()


def kill(sign: Sign) -> bool:
    """End the process of a sign at once, if it is that process; returns whether it was."""
    is_other = sign.pid in (0, os.getpid()) or sign.host != socket.gethostname()
    if is_other or not sign.born or abs(_born(sign.pid) - sign.born) > SAME_BIRTH:
        return False
    import psutil  # type: ignore[import-untyped]

    try:
        psutil.Process(sign.pid).kill()
    except psutil.Error:
        return False
    return True


def _born(pid: int) -> float:
    """When a process was started, in seconds of the epoch; 0 where that is not told."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def is_gone(sign: Sign) -> bool:
    """Its process is not there any more, as far as this machine can tell."""
    if sign.host != socket.gethostname():
        return False
    import psutil

    try:
        return bool(psutil.Process(sign.pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
