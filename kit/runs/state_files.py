"""A run's states on disk: the newest and the one before it, so that a damaged one costs little.

<run>.run/state/state.pt           the newest
<run>.run/state/state_before.pt    the one before it
<run>.run/state/run.json           the record once more, for where the run's own cannot be read

The record in the run's folder is written last: a state of a later step is one that a kill left
before its record, and does not count. No torch here.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from kit.reading import paths

STATE_FILE = "state.pt"
BEFORE = "state_before.pt"
FOLDER = "state"  # in the run's own


def before(path: Path) -> Path:
    """Where the state lies that this one replaced."""
    return path.with_name(BEFORE)


def holds_state(folder: Path) -> bool:
    """A state lies there, or the one before it after a kill between two renames."""
    return any(paths.is_file(folder / name) for name in (STATE_FILE, BEFORE))


def replace_state(path: Path, write: Callable[[Path], object]) -> None:
    """Write a state; the one that was there stays beside it, and the one before that goes.

    Whatever breaks it off, a whole state lies there, if one did before.

    Raises: what `write` raises, and OSError; then nothing has changed.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        write(part)
        with part.open("r+b") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        if path.exists():
            path.replace(before(path))
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def make_newest(path: Path) -> None:
    """The run went on from this state: a newer one, damaged or without a record, is dropped."""
    if path.name == BEFORE:
        path.replace(path.with_name(STATE_FILE))


def damage(path: Path) -> str:
    """What is wrong with a file that torch.save wrote, by the checksums in it; "" where nothing is.

    torch writes a CRC-32 of every record, and does not look at it when it reads.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except FileNotFoundError:
        return "it is not there"
    except OSError as error:
        return error.strerror or "it cannot be read"
    except Exception:  # a flipped bit in the table of records raises whatever it may
        return "it is cut short, or something else than a state"
    return f"{wrong.rpartition('/')[2]} is not what was written" if wrong else ""
