"""What is measured of each file of a run, held against the bare base model.

Every measure is a share, and 1 is best. Likeness: of each picture of the subject, whether it is
recognised as what the training pictures show (1) or as what the bare base draws (0). Fidelity: of
each prompt without the subject, 1 as the bare base draws it, 0 as differently as another prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Losses:
    """How well a file explains pictures, beside the bare base model.

    gain: the share of the base's loss that is gone, on pictures `on` = "held-out" or "trained";
    carried, word: the overfit meter (`kit.validation.meter`); prior: how much greater the loss is
    on pictures that the base itself draws for the class word, as a share of the base's.
    """

    on: str = ""
    gain: float | None = None
    trained_gain: float | None = None
    carried: float | None = None
    word: str = ""
    prior: float | None = None


@dataclass(frozen=True)
class Measured:
    """One file. The places of likeness and fidelity are the same pictures in every file."""

    file: str  # its name
    step: int
    likeness: tuple[float, ...] = ()
    fidelity: tuple[float, ...] = ()
    losses: Losses = Losses()

    def score(
        self, pictures: Sequence[int] | None = None, others: Sequence[int] | None = None
    ) -> float:
        """The mean of likeness and fidelity; of these places where they are given."""
        parts = (_at(self.likeness, pictures), _at(self.fidelity, others))
        means = [mean for part in parts if (mean := mean_of(part)) is not None]
        return sum(means) / len(means) if means else 0.0


def _at(values: Sequence[float], places: Sequence[int] | None) -> Sequence[float]:
    return values if places is None else [values[place] for place in places]


def mean_of(values: Sequence[float]) -> float | None:
    """Their mean; None where there are none."""
    return sum(values) / len(values) if values else None
