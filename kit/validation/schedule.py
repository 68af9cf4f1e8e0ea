"""When is validated, on which pictures, and what it costs beside the training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from kit.dataset.batches import Layout
from kit.dataset.images import TrainImage
from kit.settings import Captions, Validation
from kit.validation.class_word import FORWARDS, class_captions
from kit.validation.questions import EACH, beside

MOST = 0.10  # the share of the time that is taken where nobody says how often
# What answering a question takes beside learning from a picture: the way forward alone. Measured
# 0.40 on the embedded base (0.036 beside 0.09 seconds); less with gradient checkpointing.
FORWARD = 0.4
TRAINED = 16  # pictures that are asked about where none is held out


@dataclass(frozen=True)
class Length:
    """A run's length, as far as validation asks."""

    total: int  # steps
    per_epoch: int
    uses: int  # images of an epoch, repeats counted
    batch: int  # images of the largest batch

    @classmethod
    def of(cls, layout: Layout, total: int, per_epoch: int) -> Self:
        """That of a layout's epochs."""
        buckets = [images for part in layout.parts for _, images in part.buckets]
        uses = sum(count for images in buckets for _, count in images)
        return cls(total, per_epoch, uses, max(part.batch_size for part in layout.parts))


@dataclass(frozen=True)
class Schedule:
    """When the LoRA is asked, and about which images (by index)."""

    held_out: tuple[int, ...] = ()
    beside: tuple[int, ...] = ()  # as many training pictures
    total: int = 0
    per_epoch: int = 1
    every_steps: int = 0
    every_epochs: int = 0
    most: int = 0  # questions about held-out pictures at once; 0: all. And of the others as many
    share: float = 0.0  # of the run's time, about
    drawn: tuple[str, ...] = ()  # captions of pictures that the bare base draws

    def __bool__(self) -> bool:
        """There is something to ask."""
        return bool(self.held_out or self.beside)

    def is_due(self, step: int) -> bool:
        """The LoRA is asked after this step; always after the last."""
        if not self or step < 1:
            return False
        return step == self.total or any(step % gap == 0 for gap in self._gaps)

    @property
    def times(self) -> int:
        """How often in all."""
        gaps = self._gaps
        found = sum(self.total // gap for gap in gaps)
        found -= self.total // math.lcm(*gaps) if len(gaps) == 2 else 0
        return found + all(self.total % gap for gap in gaps)

    @property
    def _gaps(self) -> list[int]:
        return [gap for gap in (self.every_steps, self.every_epochs * self.per_epoch) if gap]

    def lines(self, learned: int) -> Iterator[str]:
        """What will be asked, how often, and what it costs; learned: pictures that are trained."""
        if not self:
            return
        held, others, times = len(self.held_out), len(self.beside), self.times
        what = f"{held} of {held + learned} images held out" if held else "no image is held out"
        yield (
            f"validation: {what}, measured beside {others} that {'is' if others == 1 else 'are'} "
            f"trained{self._and_drawn}, {times} time{'' if times == 1 else 's'} "
            f"({self._how_often}), about {max(1, round(100 * self.share))} % of the time"
        )

    @property
    def _and_drawn(self) -> str:
        count = len(self.drawn)
        return f" and {count} that the bare base model draws for the class word" if count else ""

    @property
    def _how_often(self) -> str:
        told = {"step": self.every_steps, "epoch": self.every_epochs}
        ways = [
            f"every {noun}" if gap == 1 else f"every {gap} {noun}s"
            for noun, gap in told.items()
            if gap
        ]
        return " and ".join([*ways, "at the end"])


def schedule(
    images: Sequence[TrainImage],
    validation: Validation,
    length: Length,
    captions: Sequence[Captions] = (Captions(),),
) -> Schedule:
    """What a run's settings ask for; captions: how they are read, by an image's subset.

    Without held-out pictures some training pictures are asked about, and some that the bare base
    draws for their captions without the subject, where validate_every_n_* says when. Where nothing
    says when: every epoch, or every few, so that it takes MOST of the time.
    """
    held = tuple(i for i, image in enumerate(images) if image.held_out)
    asks_anyway = validation.validate_every_n_steps or validation.validate_every_n_epochs
    if not held and not asks_anyway:
        return Schedule()
    chosen = beside(images, count=len(held) or TRAINED, seed=validation.from_seed)
    drawn = () if held else class_captions(images, chosen, captions)
    groups = [group for group in (held, chosen, drawn) if group]
    most = _most(validation.max_validation_steps or 0, length, groups)
    asked = sum(min(len(group) * EACH, most or math.inf) for group in groups)
    made = Schedule(
        held,
        chosen,
        length.total,
        length.per_epoch,
        validation.validate_every_n_steps or 0,
        validation.validate_every_n_epochs or 0,
        most,
        drawn=drawn,
    )
    if asks_anyway:
        return replace(made, share=_share(made, asked, length))
    for epochs in range(1, math.ceil(length.total / length.per_epoch) + 1):
        made = replace(made, every_epochs=epochs)
        made = replace(made, share=_share(made, asked, length))
        if made.share <= MOST:
            break
    return made


def _most(batches: int, length: Length, groups: Sequence[Sequence[object]]) -> int:
    """Questions about each group of pictures that so many batches leave; 0: all."""
    if not batches:
        return 0
    left = max(1, batches * length.batch // len(groups))
    return left if left < max(len(group) for group in groups) * EACH else 0


def _share(made: Schedule, asked: float, length: Length) -> float:
    """Of the whole time; the bare base model is asked once, too, and draws what it draws."""
    trained = length.total / length.per_epoch * length.uses
    forwards = asked * (made.times + 1) + (FORWARDS if made.drawn else 0)
    extra = FORWARD * forwards / max(1.0, trained)
    return extra / (1 + extra)
