"""The sink events.jsonl: a run's events, kept so that another process or day can show them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from kit.errors import KitError
from kit.events import Event, Failed, Sampled, Saved, from_line, to_line
from kit.runs.atomic_write import write_atomically


class JsonLines:
    """events.jsonl: one line per event, there as soon as the event is.

    from_step: the run goes on from this step; what an earlier attempt told about later steps is
    taken out first, so that every step stands there once. 0 begins the file anew.
    """

    def __init__(self, path: Path, from_step: int = 0) -> None:
        self.path = path
        self.from_step = from_step
        self._file: TextIO | None = None
        self._is_trimmed = False

    def __call__(self, event: Event) -> None:
        """Append the event."""
        if self._file is None and isinstance(event, Failed):
            return  # the run did not even begin: there is nothing that could be shown later
        if self._file is None:
            self._file = self._opened()
        elif not _is_at(self._file, self.path):
            self._file = self._opened_again(self._file)
        self._file.write(f"{to_line(event)}\n")
        self._file.flush()

    def close(self) -> None:
        """Let go of the file; a later event opens it again and goes on behind its last line."""
        if self._file is None:
            return
        file, self._file = self._file, None
        with suppress(OSError):  # a full disk: the sink is muted by then, and was told of
            file.close()

    def _opened(self) -> TextIO:
        # Not at the start: the run makes its folder after its listeners were chosen.
        if not self._is_trimmed:
            text = "".join(f"{to_line(event)}\n" for event in self.kept())
            write_atomically(self.path, lambda part: part.write_text(text, "utf-8"))
            self._is_trimmed = True
        return self.path.open("a+", encoding="utf-8")

    def _opened_again(self, gone: TextIO) -> TextIO:
        """Somebody deleted the file or its folder: as long as it was open, its text is not lost."""
        told = ""
        with suppress(OSError, ValueError), gone:
            gone.seek(0)
            told = gone.read()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            write_atomically(self.path, lambda part: part.write_text(told, "utf-8"))
        return self.path.open("a+", encoding="utf-8")

    def kept(self) -> list[Event]:
        """What an earlier attempt told about the steps that are not made again."""
        if self.from_step == 0 or not self.path.exists():
            return []
        try:
            events = _readable(_lines(self.path))
        except OSError:  # it cannot be read: the history begins anew, and writing tells why
            return []
        return [event for event in events if not _is_after(event, self.from_step)]


def _is_at(file: TextIO, path: Path) -> bool:
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
