"""How a training in several processes ended: by its events, or else by what each rank said.

Rank 0 tells how a run ends. Where it was killed nobody does, and then the launcher's own process
writes the last event, so that who looks at the run later knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kit.events import Event, Failed, Finished
from kit.processes.heartbeats import Sign, is_gone, read
from kit.sinks.tail import Tail

STOPPED, WRONG = 3, 2  # exit codes, as of kit train

_State = tuple[int, int, int] | None


@dataclass(frozen=True)
class LastWord:
    """event: the run's last, if it was told since the launch began. code: the launcher's own."""

    event: Event | None
    code: int


def state_of(run_dir: Path | None) -> _State:
    """What an events.jsonl is known by: an earlier session's last word is none of this one's."""
    if run_dir is None:
        return None
    try:
        found = (run_dir / "events.jsonl").stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def last_word_of(run_dir: Path | None, before: _State, code: int) -> LastWord:
    """What the run told last since `before`."""
    if run_dir is None or state_of(run_dir) == before:
        return LastWord(None, code)
    try:
        events, _ = Tail(run_dir / "events.jsonl").new()
    except OSError:
        events = []
    return LastWord(events[-1] if events else None, code)


def is_over(event: Event | None) -> bool:
    """It is a run's last event."""
    return isinstance(event, Finished | Failed)


def who_broke_off(run_dir: Path, code: int) -> str:
    """A sentence about the process that ended first, as far as their signs of life tell.

    code: the launcher's, which is told where no process has left a sign.
    """
    signs = read(run_dir)
    for sign in signs:
        if not sign.words and is_gone(sign):
            return (
                f"Process {sign.rank} (pid {sign.pid} on {sign.host}) ended without a word "
                f"{_at(sign)}: it was killed, by a person or because the machine had no memory left"
            )
    for sign in signs:
        if sign.words:
            return f"Process {sign.rank} failed {_at(sign)}: {sign.words}"
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"The launcher of the processes {how}, and none of them has left a word"


def _at(sign: Sign) -> str:
    return f"at {sign.doing}" if sign.steps else f"while it was {sign.doing}"
