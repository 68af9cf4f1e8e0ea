"""The last word about a run whose own process cannot say it any more."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from kit.errors import KitError, without_secrets
from kit.events import Failed, Finished, from_line, to_line

TAIL = 1 << 16  # bytes at the end that are looked through


def tell_failed(run_dir: Path, text: str) -> bool:
    """Add Failed to a run's events, unless they have ended; returns whether it was added."""
    path = run_dir / "events.jsonl"
    try:
        with path.open("rb+") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            end = file.read()
            lines = [line for line in end.decode("utf-8", "replace").split("\n") if line.strip()]
            with suppress(KitError):
                if lines and isinstance(from_line(lines[-1]), Failed | Finished):
                    return False
            file.seek(size - len(end) + end.rfind(b"\n") + 1)  # a line that was torn goes
            file.truncate()
            line = to_line(Failed(without_secrets(text)))
            file.write(f"{line}\n".encode("utf-8", "replace"))
    except OSError:  # it did not begin, or nothing can be written: nobody hears more
        return False
    return True
