"""The LoRA files that a run has left, and the step of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.basemodel.headers import read_header
from kit.errors import KitError
from kit.events import Saved
from kit.runs.finding import LORA_SUFFIXES, Found
from kit.sinks import read_events


@dataclass(frozen=True)
class LoraPath:
    """A file and after which step it was written."""

    path: Path
    step: int


def files_of(run: Found) -> tuple[LoraPath, ...]:
    """Those that lie there now, the earliest first.

    Raises: KitError where there are none.
    """
    folder, name = run.kept_in.parent, run.name
    own = re.compile(rf"{re.escape(name)}(-\d{{6}}|-step\d{{8}})?")
    told = _steps_told(run)
    found = [
        LoraPath(path, told.get(path.name) or _step_in(path))
        for path in _listed(folder)
        if path.suffix in LORA_SUFFIXES and own.fullmatch(path.stem)
    ]
    if not found:
        raise KitError(
            f"{name} has no LoRA file in {folder}, so there is nothing to choose from.",
            "A run writes them as save_every_n_epochs and save_every_n_steps say, and at its end.",
            "Put the files back beside the run's folder, or train it.",
        )
    return tuple(sorted(found, key=lambda file: (file.step, file.path.name)))


def spread(files: Sequence[LoraPath], most: int) -> tuple[LoraPath, ...]:
    """At most so many of them, evenly over the run; the last one always."""
    if len(files) <= most:
        return tuple(files)
    places = {round(i * (len(files) - 1) / max(1, most - 1)) for i in range(most)}
    return tuple(files[i] for i in sorted(places | {len(files) - 1})[-most:])


def _steps_told(run: Found) -> dict[str, int]:
    try:
        events = read_events(run.works_in / "events.jsonl")
    except (KitError, OSError):
        return {}
    return {Path(e.path).name: e.step for e in events if isinstance(e, Saved)}


def _step_in(path: Path) -> int:
    """What the file's name or its metadata tells; 0 for nothing."""
    if found := re.search(r"-step(\d{8})$", path.stem):
        return int(found[1])
    try:
        return int(read_header(path).metadata.get("ss_steps", 0)) if _has_header(path) else 0
    except (KitError, OSError, ValueError):
        return 0


def _has_header(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
