"""A run's record, run.json, and its listeners' memory, logs.json: small, and written whole."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.errors import Unreadable
from kit.reading.fields import Table, dataclass_from
from kit.reading.texts import read_json
from kit.runs.atomic_write import write_atomically
from kit.runs.state_files import FOLDER


@dataclass(frozen=True)
class RunRecord:
    """run.json: what a later start needs to know.

    owed: what was due after `step` and may not be there, or was not told: "validation", "samples",
    "files", "rates" (a change that was asked for), "end". It is made, or made again, when the run
    goes on.
    """

    fingerprint: str
    seed: int
    step: int = 0
    finished: bool = False
    owed: tuple[str, ...] = ()


def read_record(run_dir: Path) -> RunRecord | None:
    """The run's record, or the one beside its state, or None where none can be read."""
    return _record_in(run_dir) or _record_in(run_dir / FOLDER)


def _record_in(folder: Path) -> RunRecord | None:
    try:
        record = dataclass_from(RunRecord, read_json(folder / "run.json"), "run.json")
    except Unreadable:
        return None
    return record if record.step >= 0 else None


def write_record(folder: Path, record: RunRecord, *, forced: bool = True) -> None:
    """Replace the record of a run or a state in one step; forced: to the disk, at once."""
    values = asdict(record)
    if not record.owed:
        del values["owed"]  # older versions do not know it
    text = json.dumps(values, indent=2)
    if forced:
        write_atomically(folder / "run.json", lambda part: part.write_text(text, "utf-8"))
        return
    part = folder / "run.json.part"
    part.write_text(text, "utf-8")
    part.replace(folder / "run.json")


_REMEMBERING = threading.Lock()  # listeners live in several threads


def recall(run_dir: Path, name: str) -> str:
    """What a listener had to remember about this run; "" where it is not known."""
    return _memories(run_dir).get(name, "")


def remember(run_dir: Path, name: str, value: str) -> None:
    """Keep it for when the run goes on."""
    with _REMEMBERING:
        text = json.dumps({**_memories(run_dir), name: value}, indent=2)
        write_atomically(run_dir / "logs.json", lambda part: part.write_text(text, "utf-8"))


def _memories(run_dir: Path) -> dict[str, str]:
    try:
        known = Table(read_json(run_dir / "logs.json"), "logs.json").values
    except Unreadable:
        return {}
    return {name: value for name, value in known.items() if isinstance(value, str)}
