"""How large a data set's caches are, in memory or on disk: latents and encoded captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from kit.dataset.buckets import Size
from kit.dataset.captions import varies
from kit.settings import Captions, Memory, effective

LATENT_BYTES_PER_PIXEL = 2 * 4 * 4 / 64  # mean and logvar of 4 channels in fp32, an eighth a side
WIDTHS = {"sd1": (768, 0), "sd2": (1024, 0), "sdxl": (2048, 1280)}  # of a token, and pooled
SHELF = 268.0  # MB of each kind that stay in memory where the disk keeps all: see kit.caching.shelf


@dataclass(frozen=True)
class Entries:
    """So many entries of a cache, each of so many bytes in the mean."""

    count: int = 0
    each: float = 0.0

    @property
    def megabytes(self) -> float:
        """Of all of them."""
        return self.count * self.each / 1e6


@dataclass(frozen=True)
class CacheSizes:
    """What a data set's caches would hold, whether they are asked for or not."""

    latents: Entries = field(default_factory=Entries)
    captions: Entries = field(default_factory=Entries)

    def in_memory(self, memory: Memory) -> float:
        """MB of the machine's memory: all that is cached, or what stays of what a disk keeps."""
        kinds = (
            (self.latents, effective.caches_latents(memory), memory.cache_latents_to_disk),
            (
                self.captions,
                effective.caches_text_embeds(memory),
                memory.cache_text_encoder_outputs_to_disk,
            ),
        )
        return sum(
            min(entries.megabytes, SHELF) if on_disk else entries.megabytes
            for entries, is_cached, on_disk in kinds
            if is_cached
        )


def cache_sizes(
    family: str,
    memory: Memory,
    settings: Captions,
    *,
    buckets: Sequence[Size],
    captions: Sequence[str],
    flips: bool,
) -> CacheSizes:
    """Of a data set; buckets, captions: of every image, without repeats. No family: captions 0."""
    latents = Entries()
    if buckets:
        pixels = sum(math.prod(bucket) for bucket in buckets) / len(buckets)
        latents = Entries((2 if flips else 1) * len(buckets), pixels * LATENT_BYTES_PER_PIXEL)
    ways = settings.cached_caption_variants if varies(settings, captions) else 1
    width, pooled = WIDTHS.get(family, (0, 0))
    size = 4 * ((memory.max_token_length + 2) * width + pooled)
    return CacheSizes(latents, Entries(len(set(captions)) * ways, size))
