"""What can be given up for memory, rung by rung, and what each rung is in the form's settings.

Before a training a person chooses among all rungs. In mid-run only those are taken that keep the
batch, the data and the mean of the gradient: checkpointing first, then fewer images at once, whose
gradients are gathered. A run's `Footing` says on which of them it stands; its state keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kit.settings import Basic, Memory, effective


@dataclass(frozen=True)
class Rung:
    """One thing that is given up.

    change: the settings that take this rung, {} where it is taken or cannot be. It reads the
    sections and whether a text encoder learns.
    same: the gradient stays the same but for rounding; otherwise the training is another one.
    in_mid_run: a running training can take it.
    """

    name: str
    words: str
    change: Callable[[Basic, Memory, bool], dict[str, Any]]
    same: bool = True
    in_mid_run: bool = False


def _cached_latents(basic: Basic, memory: Memory, learns: bool) -> dict[str, Any]:
    return {} if effective.caches_latents(memory) else {"cache_latents": True}


def _cached_texts(basic: Basic, memory: Memory, learns: bool) -> dict[str, Any]:
    if learns or effective.caches_text_embeds(memory):
        return {}
    return {"cache_text_encoder_outputs": True}


def _latents_on_disk(basic: Basic, memory: Memory, learns: bool) -> dict[str, Any]:
    there = memory.cache_latents_to_disk or not effective.caches_latents(memory)
    return {} if there else {"cache_latents_to_disk": True}


def _texts_on_disk(basic: Basic, memory: Memory, learns: bool) -> dict[str, Any]:
    there = memory.cache_text_encoder_outputs_to_disk or not effective.caches_text_embeds(memory)
    return {} if there else {"cache_text_encoder_outputs_to_disk": True}


def _checkpointing(basic: Basic, memory: Memory, learns: bool) -> dict[str, Any]:
    return {} if memory.gradient_checkpointing else {"gradient_checkpointing": True}


def _half_batch(basic: Basic, memory: Memory, learns: bool) -> dict[str, Any]:
    """Of an odd batch there is no half with a whole number of batches: the next divisor counts."""
    rows = basic.train_batch_size
    if rows == 1:
        return {}
    pieces = next(pieces for pieces in range(2, rows + 1) if rows % pieces == 0)
    return {
        "train_batch_size": rows // pieces,
        "gradient_accumulation_steps": basic.gradient_accumulation_steps * pieces,
    }


def _int8(basic: Basic, memory: Memory, learns: bool) -> dict[str, Any]:
    plain = effective.base_precision(memory) == "as_mixed_precision"
    return {"base_precision": "int8"} if plain else {}


def _nf4(basic: Basic, memory: Memory, learns: bool) -> dict[str, Any]:
    is_int8 = effective.base_precision(memory) == "int8"
    return {"base_precision": "nf4"} if is_int8 else {}


# From what costs least. The last two change what is learned, if only a little.
RUNGS = (
    Rung("latents", "cached latents, so that the VAE rests", _cached_latents),
    Rung("texts", "cached text encoder outputs, so that the text encoders rest", _cached_texts),
    Rung("latents on disk", "latents read from the disk as they are used", _latents_on_disk),
    Rung("texts on disk", "encoded captions read from the disk as they are used", _texts_on_disk),
    Rung("checkpointing", "gradient checkpointing", _checkpointing, in_mid_run=True),
    Rung("half batch", "a smaller batch, gathered more often", _half_batch, in_mid_run=True),
    Rung("int8", "the base model in int8", _int8, same=False),
    Rung("nf4", "the base model in nf4", _nf4, same=False),
)


@dataclass(frozen=True)
class Footing:
    """On which rungs a run stands: checkpointing or not, and the most images at once."""

    checkpointing: bool = False
    rows: int = 0  # 0: a batch as it is

    def lower(self, batch_size: int) -> Footing | None:
        """The next one, for the largest batch of the run; None where there is none."""
        if not self.checkpointing:
            return Footing(True, self.rows)
        rows = min(self.rows or batch_size, batch_size)
        return Footing(True, math.ceil(rows / 2)) if rows > 1 else None

    @property
    def words(self) -> str:
        """What is given up, e.g. `gradient checkpointing, 2 images at once`."""
        kinds = [*(["gradient checkpointing"] if self.checkpointing else [])]
        images = "1 image" if self.rows == 1 else f"{self.rows} images"
        return ", ".join([*kinds, *([f"{images} at once"] if self.rows else [])]) or "nothing"

    def settings(self, batch_size: int, gathered: int) -> dict[str, Any]:
        """What to set for a new run that needs no more memory than this one does now.

        gathered: gradient_accumulation_steps. The batches of an epoch are other ones then.
        """
        wanted: dict[str, Any] = {"gradient_checkpointing": True} if self.checkpointing else {}
        if self.rows and self.rows < batch_size:
            pieces = math.ceil(batch_size / self.rows)
            wanted["train_batch_size"] = self.rows
            wanted["gradient_accumulation_steps"] = gathered * pieces
        return wanted

    def to_state(self) -> dict[str, Any]:
        """As a run's state keeps it."""
        return {"checkpointing": self.checkpointing, "rows": self.rows}

    @classmethod
    def of_state(cls, kept: Mapping[str, Any]) -> Footing:
        """What `to_state` gave; of an older state, nothing is given up."""
        return cls(bool(kept.get("checkpointing", False)), int(kept.get("rows", 0)))
