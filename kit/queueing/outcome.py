"""What became of a run that the queue started: from its files, whoever wrote them."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kit.errors import Unreadable
from kit.events import Began, Event, Failed, Finished, Saved, Stepped
from kit.queueing.starting import ENDED
from kit.queueing.store import Entry, Queue
from kit.reading.fields import Table
from kit.reading.paths import shortened
from kit.reading.texts import read_json
from kit.runs.lock import who_is_at_work_in
from kit.sinks.tail import Tail

STOPPED = 3  # the exit code of a training that was asked to stop
# A stop that comes while torch loads ends the process as the signal does; nothing is lost.
BY_SIGNAL = {-signal.SIGINT, -signal.SIGTERM, 130}
WORKING = "working"  # the folder that is held by who works the queue off
LOG = "log.txt"
RUN_DIR = "run_dir.txt"
LONGEST_NOTE = 600  # characters: what to do stands at the end
LOGS_END = 20_000  # bytes that are read of a log


@dataclass(frozen=True)
class Numbers:
    """How far a run has come, as its events tell it; validation_loss: None where none was told."""

    run_dir: str = ""
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    seconds: float = 0.0
    file: str = ""
    last: Event | None = None


def is_alive(place: Path) -> bool:
    """The process of an entry, or its starter, is at work."""
    return who_is_at_work_in(place) is not None


def is_worked_off(queue: Queue) -> bool:
    """Somebody is at work who starts the runs of the queue."""
    return who_is_at_work_in(queue.folder / WORKING) is not None


def settled(queue: Queue, entry: Entry) -> Entry | None:
    """A started entry as it is now; None where it was broken off: nobody works on it any more."""
    place = queue.place(entry.number)
    if is_alive(place):  # asked first: how it ended is written before it is let go
        return entry
    code = _code_of(place)
    if code is None:
        return _by_events(place, entry)
    if code == 0:
        return replace(entry, state="done", then="", note="")
    if code == STOPPED or (entry.then and code in BY_SIGNAL):
        return replace(entry, state=entry.then or "stopped", then="", note="")
    return replace(entry, state="failed", then="", note=_why(place, code))


def _by_events(place: Path, entry: Entry) -> Entry | None:
    """Where the starter was killed and the run was not: its last word counts."""
    match numbers_of(place).last:
        case Finished(reason="done"):
            return replace(entry, state="done", then="", note="")
        case Finished():
            return replace(entry, state=entry.then or "stopped", then="", note="")
        case Failed(text=text):
            return replace(entry, state="failed", then="", note=_in_a_line(text))
    return None


def _code_of(place: Path) -> int | None:
    try:
        return Table(read_json(place / ENDED), place / ENDED).whole("code")
    except Unreadable:
        return None


def _why(place: Path, code: int) -> str:
    """Why it failed, from its events, or else from the end of its log."""
    if code < 0:
        return f"it was killed by signal {-code}, as happens where memory is not enough"
    if isinstance(last := numbers_of(place).last, Failed):
        return _in_a_line(last.text)
    try:
        with (place / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LOGS_END))
            log = file.read().decode("utf-8", errors="replace").strip()
    except OSError:
        log = ""
    _, told, message = log.rpartition("kit: ")
    return _in_a_line(message if told else log.splitlines()[-1] if log else f"exit code {code}")


def _in_a_line(text: str) -> str:
    return shortened(" ".join(text.split()), LONGEST_NOTE)


def run_dir_of(place: Path) -> Path | None:
    """The folder of an entry's run, where it has one already."""
    try:
        text = (place / RUN_DIR).read_text("utf-8").strip()
    except OSError:
        return None
    return Path(text) if text else None


def numbers_of(place: Path) -> Numbers:
    """What the events of an entry's run tell."""
    run_dir = run_dir_of(place)
    if run_dir is None:
        return Numbers()
    try:
        events, _ = Tail(run_dir / "events.jsonl").new()
    except OSError:
        events = []
    return replace(_summed(events), run_dir=str(run_dir))


def _summed(events: Iterable[Event]) -> Numbers:
    found = Numbers()
    for event in events:
        match event:
            case Began():
                found = replace(found, total_steps=event.total_steps)
            case Stepped():
                seconds = found.seconds + event.seconds
                found = replace(found, step=event.step, loss=event.loss_average, seconds=seconds)
            case Saved():
                found = replace(found, file=event.path)
            case Finished() if event.path:
                found = replace(found, file=event.path)
        if type(event).__name__ == "Validated":
            found = replace(found, validation_loss=getattr(event, "loss", None))
        found = replace(found, last=event)
    return found
