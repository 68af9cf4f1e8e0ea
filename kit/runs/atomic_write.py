"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from kit.errors import OutputError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write to `<name>.part`, force it to disk, rename: `path` is whole or untouched."""
    part = path.with_name(f"{path.name}.part")
    try:
        write(part)
        with part.open("r+b") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text that a person asked for, whole or not at all.

    Raises: OutputError where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}.", do="Choose another path."
        ) from error
