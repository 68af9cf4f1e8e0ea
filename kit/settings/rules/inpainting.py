"""Rules about inpainting models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.settings import Settings


def _inpainting_with_cache(settings: Settings) -> Iterator[str]:
    memory = settings.memory
    if settings.model.train_inpainting and (memory.cache_latents or memory.cache_latents_to_disk):
        yield (
            "[model] train_inpainting: each use of an image has a new hole, which no cached latent "
            "can have; turn cache_latents and cache_latents_to_disk off, or train_inpainting"
        )


PROBLEMS = (_inpainting_with_cache,)
