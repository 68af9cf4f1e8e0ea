"""Text embeddings of captions: encoded once and kept in memory or on disk.

Kept embeddings lie under a hash of all they depend on: the caption's tokens and their weights, and
the weights of the text encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from kit.caching.disk import DiskCache
from kit.dataset.captions import cached_captions
from kit.dataset.images import TrainImage
from kit.events import Cached, Event
from kit.families import TextEmbeds
from kit.families.text import TextConditioner
from kit.settings import Settings


@dataclass(frozen=True)
class TextEmbedCache:
    """Encoded captions in memory."""

    kept: dict[str, TextEmbeds]

    def of(self, captions: Sequence[str]) -> TextEmbeds:
        """The text embeddings of a batch, stacked."""
        rows = [self.kept[caption] for caption in captions]
        pooled = [row.pooled_BP for row in rows if row.pooled_BP is not None]
        hidden_BND = torch.cat([row.hidden_BND for row in rows])
        return TextEmbeds(hidden_BND, torch.cat(pooled) if pooled else None)


def all_captions(
    images: Iterable[TrainImage], settings_of: Callable[[int], Settings], *, seed: int
) -> set[str]:
    """Every text that a use may read; settings_of(image) are the settings that count for it."""
    texts: set[str] = set()
    for number, image in enumerate(images):
        settings = settings_of(number).captions
        texts |= cached_captions(image.caption, settings, seed=seed, image=number)
    return texts


def cache_text_embeds(
    captions: Collection[str],
    text: TextConditioner,
    autocast: Callable[[], AbstractContextManager[Any]],
    *,
    disk: DiskCache | None = None,
    made_by: str = "",
) -> Generator[Event, None, TextEmbedCache]:
    """Encode every caption once and keep the result.

    made_by: a hash of all that encodes; it is part of what is kept on the disk.
    """
    kept: dict[str, TextEmbeds] = {}
    for caption in sorted(captions):
        key = DiskCache.key("words", *text.key(caption), made_by) if disk else ""
        tensors = disk.get(key, "hidden") if disk else None
        if tensors is None:
            with torch.no_grad(), autocast():
                text_embeds = text.embeds([caption]).to(torch.device("cpu"))
            tensors = {"hidden": text_embeds.hidden_BND.float()}
            if text_embeds.pooled_BP is not None:
                tensors["pooled"] = text_embeds.pooled_BP.float()
            if disk:
                disk.put(key, tensors)
        kept[caption] = TextEmbeds(tensors["hidden"], tensors.get("pooled"))
        yield Cached("captions", len(kept), len(captions))
    if disk:
        yield from disk.notice()
    return TextEmbedCache(kept)
