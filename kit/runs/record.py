"""A run's record, run.json, and its listeners' memory, logs.json: small, and written whole."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kit.runs.atomic_write import write_atomically


@dataclass(frozen=True)
class RunRecord:
    """run.json: what a later start needs to know."""

    fingerprint: str
    seed: int
    step: int = 0
    finished: bool = False


def read_record(run_dir: Path) -> RunRecord | None:
    """The run's record, or None where there is none that can be read."""
    try:
        values: dict[str, Any] = json.loads((run_dir / "run.json").read_text("utf-8"))
        return RunRecord(**values)
    except (OSError, ValueError, TypeError):
        return None


def write_record(run_dir: Path, record: RunRecord) -> None:
    """Replace the run's record in one step."""
    text = json.dumps(asdict(record), indent=2)
    write_atomically(run_dir / "run.json", lambda part: part.write_text(text, "utf-8"))


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
        known = json.loads((run_dir / "logs.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
