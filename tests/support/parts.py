"""Miniature families in memory, plans over drawn pictures, and jobs lived through to their end."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from kit import planning
from kit.basemodel import detect
from kit.events import Event
from kit.families import Family, Prediction
from kit.families.loading import load_family
from kit.planning import Plan
from kit.settings import Settings

Result = TypeVar("Result")


def load_tiny(folder: Path, *, dtype: torch.dtype = torch.float32) -> Family:
    """A diffusers folder as a frozen family on the CPU."""
    return load_family(
        detect(folder),
        predicts=Prediction.EPSILON,
        device=torch.device("cpu"),
        dtype=dtype,
        vae_dtype=torch.float32,
    )


def paint(path: Path, *, size: tuple[int, int] = (64, 64), seed: int = 0) -> Path:
    """A picture of random coloured squares, different for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(squares).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def paint_all(folder: Path, captions: Mapping[str, str], **changes: Any) -> Path:
    """One painted PNG with its caption for each name, in `1_thing` inside the folder."""
    for seed, (name, caption) in enumerate(captions.items()):
        picture = paint(folder / "1_thing" / f"{name}.png", seed=seed, **changes)
        picture.with_suffix(".txt").write_text(caption, "utf-8")
    return folder


def plan_for(images: Path, **changes: Any) -> Plan:
    """A plan on the CPU over a folder of images, in buckets of 64 and 128 pixels."""
    asked = {
        "train_data_dir": str(images),
        "output_dir": str(images.parent / "out"),
        "resolution": "128,128",
        "mixed_precision": "no",
        "seed": 3,
    }
    return planning.plan(Settings().replace(**asked | changes))


def outcome(job: Generator[Event, None, Result]) -> tuple[Result, list[Event]]:
    """What a job returns, and the events on its way."""
    events: list[Event] = []
    while True:
        try:
            events.append(next(job))
        except StopIteration as end:
            return end.value, events
