"""A program of its own, watched: what it prints as it prints it, and the core-seconds till then."""

from __future__ import annotations

import collections
import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit import catalog
from kit.bench.hosted import PEAKS
from kit.errors import Unreadable
from kit.reading.fields import Table
from kit.reading.texts import from_json

KEPT_LINES = 60
PAUSE = 0.5  # seconds between two looks at the clock, where nothing is printed
GRACE = 10.0  # seconds for a program that was asked to end

Tell = Callable[[str, float], object]


@dataclass(frozen=True)
class Ended:
    """How a program ended. code: None where its time was over."""

    code: int | None
    lines: Sequence[str]  # the last ones
    peaks: Mapping[str, Any] = field(default_factory=dict)


def run_program(
    command: Sequence[str],
    *,
    tell: Tell,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    until: float = 0.0,
) -> Ended:
    """Run it to its end, and hear each line with the core-seconds that the process has used.

    A line that is not yet at its end is heard, too, and again when it has grown: progress bars end
    theirs late. until: by time.monotonic(), when it is stopped; 0: never.
    """
    lines: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        cpu_times = catalog.load("psutil:Process", needs="psutil")(process.pid).cpu_times
        try:
            for line, is_whole in _lines(process, until):
                spent = cpu_times()
                tell(line, spent.user + spent.system)
                if is_whole and line.strip():
                    lines.append(line)
            code = None if until and time.monotonic() > until else process.wait()
        finally:
            _end(process)
    peaks = [line.partition(PEAKS)[2] for line in lines if PEAKS in line]
    return Ended(code, [line for line in lines if PEAKS not in line], _read(peaks))


def _lines(process: subprocess.Popen[bytes], until: float) -> Iterator[tuple[str, bool]]:
    """What is printed, as it comes; the second value says whether the line is at its end."""
    assert process.stdout is not None
    pipe, rest = process.stdout.fileno(), b""
    while not until or time.monotonic() < until:
        if not select.select([pipe], [], [], PAUSE)[0]:
            continue
        piece = os.read(pipe, 2**16)
        if not piece:
            yield rest.decode("utf-8", "replace"), True
            return
        *whole, rest = re.split(rb"[\r\n]", rest + piece)
        for line in whole:
            yield line.decode("utf-8", "replace"), True
        yield rest.decode("utf-8", "replace"), False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave no program behind."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()


def _read(told: Sequence[str]) -> Mapping[str, Any]:
    """The peaks that it told last; none where it did not come to that."""
    try:
        return Table(from_json(told[-1], "its peaks"), "its peaks").values if told else {}
    except Unreadable:
        return {}
