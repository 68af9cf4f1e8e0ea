"""What the answers tell: mean losses by band of noise, and what the LoRA gained on each picture.

A picture's gain is how much of the bare base model's loss on it the LoRA took away. Held against
the gains on pictures that were trained, it tells learning from memorising: what was learned of the
subject helps on every picture of it, what was memorised of a picture on that one alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kit.validation.questions import BANDS, Question

Bands = tuple[float | None, ...]


@dataclass(frozen=True)
class Answers:
    """The losses of the LoRA and of the bare base model, question by question."""

    asked: tuple[Question, ...]
    losses: tuple[float, ...]
    base: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The true mean over all questions."""
        return _mean(self.losses)

    @property
    def pictures(self) -> int:
        """How many were asked about."""
        return len({question.image for question in self.asked})

    @property
    def base_loss(self) -> float:
        """That of the bare base model."""
        return _mean(self.base)

    @property
    def bands(self) -> Bands:
        """The mean of each quarter of the timesteps; None where nothing was asked there."""
        return self._by_band(self.losses)

    @property
    def base_bands(self) -> Bands:
        """That of the bare base model."""
        return self._by_band(self.base)

    @property
    def gain(self) -> float:
        """The share of the base's mean loss that is gone."""
        return 1 - self.loss / self.base_loss if self.base_loss else 0.0

    def gains(self, band: int | None = None) -> list[float]:
        """Of each picture, in a band or over all: the share of the base's loss that is gone."""
        sums: dict[int, tuple[float, float]] = {}
        for question, loss, base in zip(self.asked, self.losses, self.base, strict=True):
            if band in (None, question.band):
                before, after = sums.get(question.image, (0.0, 0.0))
                sums[question.image] = (before + base, after + loss)
        return [1 - after / before for before, after in sums.values() if before > 0]

    def _by_band(self, values: Sequence[float]) -> Bands:
        found: list[list[float]] = [[] for _ in range(BANDS)]
        for question, value in zip(self.asked, values, strict=True):
            found[question.band].append(value)
        return tuple(round(_mean(each), 6) if each else None for each in found)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
