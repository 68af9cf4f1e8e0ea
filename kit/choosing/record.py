"""A choice as it is kept: choice.json in the run's folder, read again by later versions.

Its fields are a file format: none is renamed; a reader gives what an older file lacks its default.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.choosing.measures import Losses, Measured
from kit.choosing.picking import Choice
from kit.errors import KitError, OutputError
from kit.reading.fields import Table, dataclass_from
from kit.reading.paths import is_file
from kit.reading.texts import read_json
from kit.runs.atomic_write import write_atomically

NAME = "choice.json"


@dataclass(frozen=True)
class Record:
    """A choice, and how it came about.

    eye: what saw how alike pictures are; grid: the picture's file beside this one; notices: what
    was missing.
    """

    choice: Choice
    eye: str = ""
    grid: str = ""
    notices: tuple[str, ...] = ()

    def to_json(self) -> str:
        """All of it, the best file first."""
        choice = {"files": self.choice.ranked, "wins": self.choice.wins}
        own = {"eye": self.eye, "grid": self.grid, "notices": self.notices}
        return json.dumps({"version": 1, **choice, **own}, indent=1, default=dataclasses.asdict)


def write_record(folder: Path, record: Record) -> Path:
    """Keep it in a run's folder.

    Raises: OutputError where that cannot be written.
    """
    file = folder / NAME
    try:
        write_atomically(file, lambda part: part.write_text(record.to_json(), "utf-8"))
    except OSError as error:
        raise OutputError(
            f"{file} cannot be written: {error.strerror or error}.",
            do="Free some space, or give yourself the right to write there.",
        ) from error
    return file


def read_record(folder: Path) -> Record | None:
    """What was chosen of a run; None where nothing was, or where it cannot be read."""
    file = folder / NAME
    if not is_file(file):
        return None
    try:
        kept = Table(read_json(file), NAME)
        files = tuple(_measured(values) for values in kept.values["files"])
        choice = Choice(files, tuple(float(share) for share in kept.values["wins"]))
        notices = tuple(str(text) for text in kept.values.get("notices", ()))
        record = Record(choice, kept.text("eye", ""), kept.text("grid", ""), notices)
        return record if files and len(files) == len(choice.wins) else None
    except (KitError, OSError, ValueError, TypeError, KeyError):
        return None


def _measured(values: Any) -> Measured:
    told = dict(Table(values, NAME).values)
    losses = dataclass_from(Losses, told.pop("losses", {}), NAME)
    return dataclasses.replace(dataclass_from(Measured, told, NAME), losses=losses)
