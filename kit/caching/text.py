"""Text embeddings of captions: encoded once and kept in memory or on disk.

Kept embeddings lie under a hash of all they depend on: the caption's tokens and their weights, and
the weights of the text encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kit.caching.disk import DiskCache
from kit.caching.division import UNDIVIDED, Division
from kit.caching.shelf import Shelf, reread, unmapped
from kit.dataset.captions import cached_captions
from kit.dataset.images import TrainImage
from kit.events import Cached, Event
from kit.families import TextEmbeds
from kit.families.text import TextConditioner
from kit.settings import Settings


@dataclass(frozen=True)
class TextEmbedCache:
    """Encoded captions, in memory or read from the disk ahead of their use."""

    kept: Shelf[str, TextEmbeds]

    def of(self, captions: Sequence[str]) -> TextEmbeds:
        """The text embeddings of a batch, stacked."""
        rows = [self.kept[caption] for caption in captions]
        pooled = [row.pooled_BP for row in rows if row.pooled_BP is not None]
        hidden_BND = torch.cat([row.hidden_BND for row in rows])
        return TextEmbeds(hidden_BND, torch.cat(pooled) if pooled else None)

    @property
    def prefetch_batches(self) -> int:
        """How many batches it is good to prefetch."""
        return self.kept.batches_ahead

    def prefetch(self, captions: Sequence[str]) -> None:
        """These will be asked for soon, in this order."""
        self.kept.prefetch(captions)

    def close(self) -> None:
        """End the threads."""
        self.kept.close()


def in_memory(embeds: Mapping[str, TextEmbeds]) -> TextEmbedCache:
    """A cache of what is there already, which reads nothing from anywhere."""
    kept: Shelf[str, TextEmbeds] = Shelf(embeds.__getitem__, _bytes)
    for caption, each in embeds.items():
        kept.put(caption, each, on_disk=False)
    return TextEmbedCache(kept)


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
    division: Division = UNDIVIDED,
) -> Generator[Event, None, TextEmbedCache]:
    """Encode every caption once and keep the result.

    made_by: a hash of all that encodes; it is part of what is kept on the disk. What the disk keeps
    stays in memory only as far as a `Shelf` has room. division: as of `cache_latents`.
    """
    keys = {c: DiskCache.key("words", *text.key(c), made_by) if disk else "" for c in captions}

    def read(caption: str) -> TextEmbeds:
        assert disk is not None, "what lies nowhere else stays in memory"
        return _text_embeds(reread(disk, keys[caption], "hidden"))

    kept: Shelf[str, TextEmbeds] = Shelf(read, _bytes)

    def looked_up(wanted: Iterable[str]) -> list[str]:
        """Put what the disk has on the shelf; the rest is still to be encoded."""
        missing = []
        for caption in wanted:
            if disk and (tensors := disk.get(keys[caption], "hidden")):
                kept.put(caption, _text_embeds(unmapped(tensors)), on_disk=True)
            else:
                missing.append(caption)
        return missing

    def encoded(wanted: Iterable[str]) -> Iterator[Cached]:
        for caption in wanted:
            with torch.no_grad(), autocast():
                tensors = _tensors(text.embeds([caption]).to(torch.device("cpu")))
            if disk:
                disk.put(keys[caption], tensors)
            on_disk = bool(disk and not disk.refused)
            kept.put(caption, _text_embeds(unmapped(tensors)), on_disk=on_disk)
            yield Cached("captions", len(kept), len(captions))

    missing = looked_up(sorted(captions))
    if kept:
        yield Cached("captions", len(kept), len(captions))
    division.meet()  # all have looked before one writes, so that they divide the same
    yield from encoded(division.own(missing))
    division.meet()
    there = set(kept)
    yield from encoded(looked_up(caption for caption in missing if caption not in there))
    if kept and division.count > 1:
        yield Cached("captions", len(kept), len(captions))
    if disk:
        yield from disk.notice()
    return TextEmbedCache(kept)


def _tensors(text_embeds: TextEmbeds) -> dict[str, Tensor]:
    tensors = {"hidden": text_embeds.hidden_BND.float()}
    if text_embeds.pooled_BP is not None:
        tensors["pooled"] = text_embeds.pooled_BP.float()
    return tensors


def _text_embeds(tensors: Mapping[str, Tensor]) -> TextEmbeds:
    return TextEmbeds(tensors["hidden"], tensors.get("pooled"))


def _bytes(text_embeds: TextEmbeds) -> int:
    pooled_BP = text_embeds.pooled_BP
    return text_embeds.hidden_BND.nbytes + (0 if pooled_BP is None else pooled_BP.nbytes)
