"""Following a run by its events.jsonl, which another kernel or process writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kit.errors import KitError
from kit.events import Event, from_line


class Tail:
    """What a file of events has gained since the last look; a half line waits for its other half.

    A file that has become shorter is told from its beginning again: a resumed run writes it anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def new(self) -> tuple[list[Event], bool]:
        """The events, and whether they begin the file anew."""
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            is_anew = size < self._read
            file.seek(0 if is_anew else self._read)
            text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read = (0 if is_anew else self._read) + len(whole)
        return list(_events(whole)), is_anew


def _events(text: bytes) -> Iterator[Event]:
    for line in text.decode("utf-8", errors="replace").splitlines():
        try:
            yield from_line(line)
        except KitError:
            continue
