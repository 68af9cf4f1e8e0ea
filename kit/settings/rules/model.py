"""Rules about the base model: what an inpainting model does not go with."""

from __future__ import annotations

from collections.abc import Iterator

from kit.settings import Memory, Model
from kit.settings.effective import caches_latents
from kit.settings.rules.rule import problem


@problem
def inpainting_with_cache(model: Model, memory: Memory) -> Iterator[str]:
    if model.train_inpainting and caches_latents(memory):
        yield (
            "[model] train_inpainting: each use of an image has a new hole, which no cached latent "
            "can have; turn cache_latents and cache_latents_to_disk off, or train_inpainting"
        )
