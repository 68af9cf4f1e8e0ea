"""The sink events.jsonl: a run's events, kept so that another process or day can show them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import FileIO
from pathlib import Path

from kit.errors import KitError
from kit.events import (
    Event,
    Failed,
    Finished,
    Loaded,
    Noticed,
    RateChanged,
    Sampled,
    Saved,
    StateKept,
    Stepped,
    Validated,
    from_line,
    to_line,
)
from kit.runs.atomic_write import write_atomically
from kit.runs.disk import why_unwritten


class JsonLines:
    """events.jsonl: one line per event, there as soon as the event is.

    from_step: the run goes on from this step; what an earlier attempt told about later steps is
    taken out first, so that every step stands there once. 0 begins the file anew. What is told once
    more about this very step, after a kill, takes the place of what was told.

    A disk that refuses is told once, and the lines wait until it does not.
    """

    def __init__(self, path: Path, from_step: int = 0) -> None:
        self.path = path
        self.from_step = from_step
        self._file: FileIO | None = None
        self._waiting = b""
        self._is_trimmed = self._told = False
        self._retold: dict[object, Event] = {}

    def __call__(self, event: Event) -> list[Noticed]:
        """Append the event."""
        if self._file is None and isinstance(event, Failed):
            return []  # the run did not even begin: there is nothing that could be shown later
        if self._is_known(event):
            return []
        try:
            if self._file is None:
                self._open()
            elif not _is_abandoned(event) and not _is_at(self._file, self.path):
                self._open_again(self._file)
            if isinstance(event, Loaded) and event.from_step < self.from_step:
                self._go_back(event.from_step)
        except OSError as error:
            self._wait_with(event)
            return self._refused(error)
        self._wait_with(event)
        try:
            self._write()
        except OSError as error:
            return self._refused(error)
        self._told = False
        return []

    def close(self) -> None:
        """Let go of the file; a later event opens it again and goes on behind its last line."""
        file, self._file = self._file, None
        if file is None:
            return
        with suppress(OSError):  # a disk that refuses, which was told
            file.close()

    def _wait_with(self, event: Event) -> None:
        self._waiting += f"{to_line(event)}\n".encode("utf-8", "replace")

    def _write(self) -> None:
        """Write what waits. Nothing is buffered: a full disk takes a part, and the rest waits."""
        while self._waiting and self._file is not None:
            self._waiting = self._waiting[self._file.write(self._waiting) :]

    def _refused(self, error: OSError) -> list[Noticed]:
        if self._told:
            return []
        self._told = True
        return [
            Noticed(
                f"{self.path} cannot be written ({why_unwritten(error, self.path)}); the run goes "
                "on, and what it tells is written once that is possible"
            )
        ]

    def _open(self) -> None:
        # Not at the start: the run makes its folder after its listeners were chosen.
        if not self._is_trimmed:
            kept = self.kept()
            self._rewrite(kept)
            self._is_trimmed = True
            self._retold = _products_of(kept, self.from_step)
        self._file = self.path.open("ab+", buffering=0)

    def _rewrite(self, events: Iterable[Event]) -> None:
        text = "".join(f"{to_line(event)}\n" for event in events)
        write_atomically(self.path, lambda part: part.write_text(text, "utf-8"))

    def _is_known(self, event: Event) -> bool:
        """Told before the kill in the same words; in other words, the old ones are taken out."""
        if isinstance(event, Stepped):
            self._retold = {}
        old = self._retold.pop(_key(event), None)
        if old is not None and old != event:
            self._take_out(lambda told: told == old)
        return old == event

    def _go_back(self, step: int) -> None:
        """The newest state was damaged: what came after this one is told once more."""
        self.from_step = step
        self._take_out(lambda told: _is_after(told, step))
        self._retold = _products_of(_readable(_lines(self.path)), step)

    def _take_out(self, is_wrong: Callable[[Event], bool]) -> None:
        self.close()
        self._rewrite(event for event in _readable(_lines(self.path)) if not is_wrong(event))
        self._file = self.path.open("ab+", buffering=0)

    def _open_again(self, gone: FileIO) -> None:
        """Somebody deleted the file or its folder: as long as it was open, its text is not lost."""
        told = b""
        with suppress(OSError, ValueError), gone:
            gone.seek(0)
            told = gone.read()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            write_atomically(self.path, lambda part: part.write_bytes(told))
        self._file = self.path.open("ab+", buffering=0)

    def kept(self) -> list[Event]:
        """What an earlier attempt told about the steps that are not made again."""
        if self.from_step == 0 or not self.path.exists():
            return []
        try:
            events = _readable(_lines(self.path))
        except OSError:  # it cannot be read: the history begins anew, and writing tells why
            return []
        return [event for event in events if not _is_after(event, self.from_step)]


def _products_of(events: Iterable[Event], step: int) -> dict[object, Event]:
    """What was made after this very step, by what it is."""
    found = {_key(event): event for event in events if getattr(event, "step", 0) == step}
    return {key: event for key, event in found.items() if key is not None}


def _key(event: Event) -> object:
    """What a run makes once after a step; None for what may come again."""
    match event:
        case Sampled(wished=False):
            return Sampled, event.step, event.index
        case Saved(wished=False) | StateKept():
            return type(event), event.step, Path(event.path).name
        case Finished() | RateChanged() | Validated():
            return type(event), event.step
    return None


def _is_abandoned(event: Event) -> bool:
    """The last word of a run that gave its folder back: it is not made again for that."""
    return isinstance(event, Failed) or (isinstance(event, Finished) and event.step == 0)


def _is_at(file: FileIO, path: Path) -> bool:
    """The path still leads to this open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
    except OSError:  # a storage that does not answer: writing will tell
        return True


def read_events(path: Path) -> list[Event]:
    """Everything that a run has told; a last line that is torn or half written is left out.

    Raises: KitError where the file cannot be read, or a line before the last is damaged.
    """
    try:
        lines = _lines(path)
    except OSError as error:
        raise KitError(
            f"{path} cannot be read: {error.strerror or error}.",
            "A run writes it into its folder, <output_dir>/<name>.run.",
            "Give the path of that folder's events.jsonl.",
        ) from error
    return [*(from_line(line) for line in lines[:-1]), *_readable(lines[-1:])]


def _lines(path: Path) -> list[str]:
    # A machine that lost power may leave any bytes at the end.
    text = path.read_text("utf-8", errors="replace")
    return [line for line in text.split("\n") if line.strip()]


def _readable(lines: Iterable[str]) -> list[Event]:
    events = []
    for line in lines:
        try:
            events.append(from_line(line))
        except KitError:
            continue  # the history is for reading only; the run does not need the line
    return events


def _is_after(event: Event, step: int) -> bool:
    """What a person asked for stays: nobody asks for it again when the step is made again."""
    if isinstance(event, Sampled | Saved) and event.wished:
        return False
    return int(getattr(event, "step", 0)) > step
