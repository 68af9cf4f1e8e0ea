"""How a training in several processes ended: by its events, or else by what each rank said.

Rank 0 tells how a run ends. Where it was killed nobody does, and then the launcher's own process
writes the last event, so that who looks at the run later knows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.events import Event, Failed, Finished
from kit.processes.places import read
from kit.processes.signs import SAME_BIRTH, Sign, born, is_gone
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


def signs_of(run_dir: Path) -> list[Sign]:
    """The last signs of processes that are younger than this one, which launched them.

    Where machines share no folder they are those of this machine.
    """
    since = born(os.getpid()) - SAME_BIRTH
    return [sign for sign in read(run_dir) if not sign.born or sign.born > since]


def who_broke_off(signs: Sequence[Sign], code: int) -> str:
    """A sentence about the process that ended first, as far as their signs of life tell.

    code: the launcher's, which is told where no process has left a sign.
    """
    for sign in signs:
        if not sign.words and is_gone(sign):
            return (
                f"{sign.name} ended without a word {sign.at}: it was killed, by a person or "
                "because the machine had no memory left"
            )
    for sign in signs:
        if sign.words and not sign.heard:
            return f"Process {sign.rank} failed {sign.at}: {sign.words}"
    for sign in signs:
        if sign.words:
            return sign.words
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"The launcher of the processes {how}, and none of them has left a word"
