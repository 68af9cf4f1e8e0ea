"""What a process says of itself while it lives, and what this machine can tell of it."""

from __future__ import annotations

import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from kit.errors import Unreadable
from kit.reading.fields import dataclass_from
from kit.reading.texts import from_json

SAME_BIRTH = 2.0  # seconds; kernels tell the time of their own start to one or two


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
    heard: bool = False  # its words are about another process, which it has lost
    machine: str = ""  # see `machine`; machines of a cloud may all have one name

    @property
    def steps(self) -> bool:
        """It is in the middle of a step."""
        return self.doing.startswith("step")

    @property
    def is_here(self) -> bool:
        """Its process is one of this machine's."""
        return self.host == socket.gethostname() and self.machine in ("", machine())

    @property
    def at(self) -> str:
        """Where in the run that was, as the end of a sentence."""
        return f"at {self.doing}" if self.steps else f"while it was {self.doing}"

    @property
    def name(self) -> str:
        """Which process, for people."""
        return f"Process {self.rank} (pid {self.pid} on {self.host})"

    def is_of(self, other: Sign) -> bool:
        """Both are signs of one process, which another start's of the same rank is not."""
        return (self.pid, self.host, self.born) == (other.pid, other.host, other.born)

    def to_text(self) -> str:
        """As it is written."""
        return json.dumps(asdict(self))


def sign_from(text: str | bytes, name: str) -> Sign | None:
    """What was written; None where that is no sign, or half of one. name: where it stood."""
    try:
        return dataclass_from(Sign, from_json(text, name), name)
    except Unreadable:
        return None


@cache
def machine() -> str:
    """What tells this machine from others of its name: its start, and whose numbers it counts."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{start} {Path('/proc/self/ns/pid').readlink()}"
    except (OSError, ValueError):  # no Linux
        return f"{uuid.getnode():x}"


def born(pid: int) -> float:
    """When a process was started, in seconds of the epoch; 0 where that is not told."""
    import psutil  # type: ignore[import-untyped]

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def is_gone(sign: Sign) -> bool:
    """Its process is not there any more, as far as this machine can tell."""
    import psutil

    return sign.is_here and _status(sign.pid) in ("", psutil.STATUS_ZOMBIE)


def is_stopped(sign: Sign) -> bool:
    """Its process is of this machine and was told to stand still: not even a signal reaches it."""
    import psutil

    return sign.is_here and _status(sign.pid) == psutil.STATUS_STOPPED


def kill(sign: Sign) -> bool:
    """End the process of a sign at once, if it is that process; returns whether it was."""
    is_other = sign.pid in (0, os.getpid()) or not sign.is_here
    if is_other or not sign.born or abs(born(sign.pid) - sign.born) > SAME_BIRTH:
        return False
    import psutil

    try:
        psutil.Process(sign.pid).kill()
    except psutil.Error:
        return False
    return True


def _status(pid: int) -> str:
    """What the kernel says of a process: "" where there is none, "?" where it does not say."""
    import psutil

    try:
        return str(psutil.Process(pid).status())
    except psutil.NoSuchProcess:
        return ""
    except psutil.Error:
        return "?"
