"""Following a run by its events.jsonl, which another kernel or process writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kit.errors import KitError
from kit.events import Event, from_line

COMPARED = 200  # bytes before the place that was read to: about a line


class Tail:
    """What a file of events has gained since the last look; a half line waits for its other half.

    A file that no longer goes on where it was read is told from its beginning again: a resumed run
    writes it anew, and may have made it longer than it was by the next look.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read, self._last = 0, b""  # how far, and the end of that

    def new(self) -> tuple[list[Event], bool]:
        """The events, and whether they begin the file anew."""
        with self.path.open("rb") as file:
            file.seek(self._read - len(self._last))
            is_anew = file.read(len(self._last)) != self._last
            if is_anew:
                self._read, self._last = file.seek(0), b""
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        self._last = (self._last + whole)[-COMPARED:]
        return list(_events(whole)), is_anew


def _events(text: bytes) -> Iterator[Event]:
    for line in text.decode("utf-8", errors="replace").splitlines():
        try:
            yield from_line(line)
        except KitError:
            continue
