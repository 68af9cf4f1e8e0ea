"""How fast this machine trained, kept in a small file: what the next forecast is made of.

    measured.json    [{"device": ..., "work": {...}, "seconds": ..., "megabytes": ...}, ...]

Work is what a step's time and memory depend on, a flat mapping. A row holds what a command
measured, and nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from kit.basemodel.mismatches import known_of
from kit.errors import Unreadable
from kit.hosts import cache_folder, host
from kit.reading.fields import Table
from kit.reading.texts import from_json, read_text
from kit.settings import Model, Settings, effective

Work: TypeAlias = Mapping[str, Any]
FILE = "measured.json"
MINIATURE = 192  # pixels; a base made for smaller pictures is no full model of its family
MOST = 200  # rows; the oldest go first
# What may differ for a figure to be worth telling, with what differs; all else must be equal.
NEARLY = ("LoRA_type", "network_dim", "conv_dim", "optimizer_type", "caches_captions")


@dataclass(frozen=True)
class Measured:
    """A run's figures.

    seconds: median of a step; megabytes: most memory in use; picture_seconds: of a sample picture,
    0 where none was drawn; source: where a shipped figure is from.
    """

    device: str
    work: Work
    seconds: float
    megabytes: int
    picture_seconds: float = 0.0
    source: str = ""


def work_of(settings: Settings, family: str = "") -> dict[str, Any]:
    """What a step of this run is, as far as time and memory depend on it."""
    basic, network, memory = settings.basic, settings.network, settings.memory
    unet, *_ = effective.learning_rates(basic)
    learns = {
        "unet": bool(unet),
        "text encoder": effective.encoder_learns(basic, settings.rates),
    }
    width, height = settings.images.size
    return {
        "family": family,
        "miniature": _is_miniature(settings.model),
        "resolution": f"{width}x{height}",
        "train_batch_size": basic.train_batch_size,
        "gradient_accumulation_steps": basic.gradient_accumulation_steps,
        "mixed_precision": memory.mixed_precision,
        "full_precision": effective.full_precision(memory),
        "base_precision": effective.base_precision(memory),
        "gradient_checkpointing": memory.gradient_checkpointing,
        "keeps_attention": effective.keeps_attention_matrices(memory),
        "caches_latents": effective.caches_latents(memory),
        "dynamo_backend": settings.machine.dynamo_backend,
        "shards": effective.shards(settings.machine),
        "learns": " and ".join(name for name, does in learns.items() if does),
        "caches_captions": effective.caches_text_embeds(memory),
        "LoRA_type": network.LoRA_type,
        "network_dim": network.network_dim,
        "conv_dim": network.conv_dim,
        "optimizer_type": basic.optimizer_type,
    }


def _is_miniature(model: Model) -> bool:
    """A base of a family's shape and a hundredth of its size, such as ours."""
    known = known_of(model)
    return known is not None and known.side < MINIATURE


def read_measured(text: str) -> list[Measured]:
    """The rows of a file, oldest first; what cannot be read is left out."""
    try:
        rows = from_json(text, FILE)
    except Unreadable:
        return []
    return [row for row in map(_row, rows if isinstance(rows, list) else []) if row]


def measured_here() -> list[Measured]:
    """What this machine's runs measured, oldest first."""
    try:
        return read_measured(read_text(_file()))
    except Unreadable:
        return []


def remember(new: Measured) -> None:
    """Keep a run's figures, in the place of older ones of the same work.

    Raises: OSError where the file cannot be written.
    """
    others = (row for row in measured_here() if (row.device, row.work) != (new.device, new.work))
    rows = [asdict(row) for row in (*others, new)][-MOST:]
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{FILE}.{os.getpid()}")
    fresh.write_text(json.dumps(rows, indent=1), "utf-8")
    fresh.replace(file)


def best_of(
    rows: Iterable[Measured], device: str, work: Work
) -> tuple[Measured, tuple[str, ...]] | None:
    """The newest row that was measured at this work, with the names of what differed.

    A row is asked only for what it holds: shipped figures do not say all.
    """
    fits: list[tuple[Measured, tuple[str, ...]]] = []
    for row in rows:
        differs = tuple(name for name, value in row.work.items() if work.get(name) != value)
        if row.device == device and all(name in NEARLY for name in differs):
            fits.append((row, differs))
    return min(reversed(fits), key=lambda fit: len(fit[1]), default=None)


def _file() -> Path:
    here = host()
    # A session's own disk is gone with it; Drive is not.
    folder = here.output_folder / ".lora-kit" if here.slow else cache_folder(here)
    return folder / FILE


def _whole_work(work: Work) -> Work:
    """Rows without a word are of before it was told; at 64 pixels nobody trains a full model."""
    return {"miniature": work.get("resolution") == "64x64", "shards": 1, **work}


def _row(values: Any) -> Measured | None:
    try:
        told = Table(values, FILE)
        row = Measured(
            told.text("device"),
            _whole_work(told.table("work").values),
            told.number("seconds"),
            told.whole("megabytes", least=0),
            told.number("picture_seconds", 0.0),
            told.text("source", ""),
        )
    except Unreadable:
        return None
    return row if row.seconds > 0 else None
