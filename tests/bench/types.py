"""What each LoRA type learns of the demo subject, with a sensible preset: minutes each, by hand.

    python -m tests.bench.types OUT [--steps 500] [--kinds "LyCORIS/LoHa" ...]

Prints a row for each type: steps, seconds, share of subject pictures that the checker accepts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from kit import catalog
from kit.adapters.network import attach, parts_of
from kit.demo import BASE, settings
from kit.demo.grading import grade_subject
from kit.families import Family
from kit.families.text import TextConditioner
from kit.lorafile import tensors as lora_file
from kit.planning import plan
from kit.settings import NetworkSettings
from kit.training.loop import train
from kit.training.sampling import SamplePipeline
from tests.support.parts import load_tiny

# Where the demo's own rank 16, alpha 16 and rate of 4e-4 do not suit the type.
_FAST = {"unet_lr": 1e-3, "text_encoder_lr": 1e-3}
_SMALL = {"network_dim": 8, "network_alpha": 8, "conv_dim": 8, "conv_alpha": 8}
PRESETS: dict[str, dict[str, Any]] = {
    "LoRA-FA": {"unet_lr": 2e-3, "text_encoder_lr": 2e-3},
    "Kohya DyLoRA": {**_FAST, "unit": 4},
    "LyCORIS/DyLoRA": {**_FAST, "unit": 4},
    "LyCORIS/LoHa": {**_FAST, **_SMALL},
    "LyCORIS/LoKr": {"factor": 4, "network_alpha": 8, "unet_lr": 2e-3, "text_encoder_lr": 1e-3},
    "LyCORIS/iA3": {"unet_lr": 1.5e-2, "text_encoder_lr": 1.5e-2, "train_on_input": False},
    "LyCORIS/Diag-OFT": _FAST,
    "LyCORIS/BOFT": _FAST,
    "LyCORIS/Native Fine-Tuning": {"unet_lr": 1.5e-4, "text_encoder_lr": 1.5e-4},
}
PRESETS["Kohya LoHa"] = PRESETS["LyCORIS/LoHa"]
PRESETS["Kohya LoKr"] = PRESETS["LyCORIS/LoKr"]


def main() -> None:
    """Train and grade one type after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--count", type=int, default=40, help="pictures to grade")
    parser.add_argument("--set", nargs="*", default=[], help="name=value, for a trial")
    parser.add_argument("--kinds", nargs="*", default=[])
    asked = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in asked.set)
    for kind in asked.kinds or catalog.LORA_TYPES:
        began = time.monotonic()
        changes = {"LoRA_type": kind, **PRESETS.get(kind, {}), **given}
        path, loss = _trained(asked.out / kind.replace("/", "-"), asked.steps, changes)
        seconds = time.monotonic() - began
        grade = _graded(kind, path, asked.count)
        size = path.stat().st_size / 1e3
        print(
            f"| {kind} | {asked.steps} | {seconds:.0f} s | {loss:.4f} | {size:.0f} kB | {grade} |"
        )


def _trained(out: Path, steps: int, changes: dict[str, Any]) -> tuple[Path, float]:
    quiet = {"sample_at_first": False, "sample_every_n_steps": 0, "sample_prompts": ""}
    todo = plan(settings(str(out), steps=steps).replace(**quiet, **changes))
    events = list(train(todo))
    return Path(events[-1].path), [e.loss for e in events if hasattr(e, "loss")][-1]


def _graded(kind: str, path: Path, count: int) -> str:
    family = load_tiny(BASE)
    with _wearing(kind, family, path):
        return str(
            grade_subject(SamplePipeline(TextConditioner(family), "ddim", nullcontext), count=count)
        )


@contextmanager
def _wearing(kind: str, family: Family, path: Path) -> Iterator[None]:
    own = NetworkSettings(LoRA_type=kind, network_weights=str(path), dim_from_weights=True)
    tensors = lora_file.read_lora(path).tensors
    network = attach(own, family, learns=parts_of(family), seed=0, start=tensors).eval()
    yield
    network.detach_hooks()


if __name__ == "__main__":
    main()
