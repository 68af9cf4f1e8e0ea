"""Batch order: the images at micro-step n, a function of the seed and n alone.

Each bucket's images (times their repeats) are shuffled and cut into batches, then all batches are
shuffled. The order of an epoch depends on (seed, epoch) alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from kit.dataset.buckets import Size
from kit.randomness import random_at

AS_IT_IS = -1  # a turn of no epoch: not mirrored, cut at its centre, in its own colours


@dataclass(frozen=True)
class ImageUse:
    """One image in one batch: `image` is its index, `turn` numbers its uses within the epoch."""

    image: int
    turn: int


@dataclass(frozen=True)
class Layout:
    """The images of every bucket with their repeats: what an epoch is made of.

    buckets: bucket size to (image index, uses per epoch), in order.
    rotating: bucket size to the regularisation images that take turns there from epoch to epoch,
    because an epoch does not need all of them.
    part: the number of this data set among several; more: the others, whose batches are mixed in.
    """

    buckets: tuple[tuple[Size, tuple[tuple[int, int], ...]], ...]
    batch_size: int
    seed: int
    rotating: tuple[tuple[Size, tuple[int, ...]], ...] = ()
    part: int = 0
    more: tuple[Layout, ...] = ()

    @property
    def parts(self) -> tuple[Layout, ...]:
        """The layouts of all data sets, each with its own batch size."""
        return (self, *self.more)

    @property
    def batches_per_epoch(self) -> int:
        """Each bucket rounds up: its last batch may be short."""
        return sum(
            math.ceil(sum(count for _, count in images) / part.batch_size)
            for part in self.parts
            for _, images in part.buckets
        )


def batch_at(layout: Layout, micro_step: int) -> tuple[Size, tuple[ImageUse, ...]]:
    """Bucket and images of the micro-step (a batch counted from 0 over the whole run)."""
    epoch, place = divmod(micro_step, layout.batches_per_epoch)
    return _epoch(layout, epoch)[place]


@lru_cache(maxsize=4)
def _epoch(layout: Layout, epoch: int) -> tuple[tuple[Size, tuple[ImageUse, ...]], ...]:
    """All batches of an epoch, in order."""
    batches = [batch for part in layout.parts for batch in _batches(part, epoch)]
    order = random_at(layout.seed, "batches", epoch).permutation(len(batches))
    return tuple(batches[i] for i in order)


def _batches(layout: Layout, epoch: int) -> list[tuple[Size, tuple[ImageUse, ...]]]:
    """The batches of one data set's buckets, each bucket shuffled by itself."""
    rotating = dict(layout.rotating)
    place = (layout.part,) if layout.part else ()  # buckets of several data sets may be equal
    batches: list[tuple[Size, tuple[ImageUse, ...]]] = []
    for size, images in layout.buckets:
        stand_ins = _stand_ins(images, rotating.get(size, ()), epoch)
        uses = [
            ImageUse(stand_ins.get(image, image), turn)
            for image, count in images
            for turn in range(count)
        ]
        order = random_at(layout.seed, "order", epoch, *size, *place).permutation(len(uses))
        shuffled = [uses[i] for i in order]
        batches += [
            (size, tuple(shuffled[start : start + layout.batch_size]))
            for start in range(0, len(shuffled), layout.batch_size)
        ]
    return batches


def _stand_ins(
    images: tuple[tuple[int, int], ...], pool: tuple[int, ...], epoch: int
) -> dict[int, int]:
    """Which image of the pool serves in whose place: each epoch takes the next ones."""
    place_of = {image: place for place, image in enumerate(pool)}
    serving = [image for image, _ in images if image in place_of]
    shift = epoch * len(serving)
    return {image: pool[(place_of[image] + shift) % len(pool)] for image in serving}


def balanced_repeats(repeats: Sequence[int], total: int) -> list[int]:
    """How often each regularisation image is used per epoch, so that they reach `total` together.

    The first pass adds each image's own repeats in order, further passes add one each, until the
    sum reaches the total; the last pass may end in the middle (sd-scripts, trainer behaviour 1.3).
    """
    uses = [0] * len(repeats)
    reached, first_pass = 0, True
    while reached < total and repeats:
        for i, own in enumerate(repeats):
            added = own if first_pass else 1
            uses[i] += added
            reached += added
            if reached >= total:
                break
        first_pass = False
    return uses
