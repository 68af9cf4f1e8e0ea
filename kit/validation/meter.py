"""The overfit meter: does the LoRA explain what it has seen better than what it has not?

No image encoder is needed. A picture's gain is the share of the bare base model's loss on it that
the LoRA took away. Gains on trained and on held-out pictures are alike while the LoRA learns the
subject; they part when it learns the pictures instead. In the words of privacy research it is a
membership signal, calibrated by a reference model (Carlini et al. 2022,
https://arxiv.org/abs/2112.03570; of diffusion models: https://arxiv.org/abs/2301.13188).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kit.validation.answers import Answers, Bands
from kit.validation.questions import BANDS

LEAST = 2  # pictures of each kind, to say anything
# What is carried over, below which the word is said. On the embedded base all 15 readings of a run
# that was right were above 0.65, and 36 of 37 of twenty runs that were built to end badly below 0.4
# (tests/validation/experiment.py and proof.py; kit/LOG.md).
MEMORISING, ENOUGH = 0.4, 0.65
LITTLE = 0.02  # a gain on trained pictures, or a loss, that says nothing yet


@dataclass(frozen=True)
class Reading:
    """What the meter shows; see `kit.events.Validated`."""

    carried: float | None = None
    gap: float | None = None
    gaps: Bands = ()
    auc: float | None = None
    aucs: Bands = ()
    word: str = ""


def read(held_out: Answers, trained: Answers) -> Reading:
    """The meter after asking about both kinds of pictures.

    The word is "spoiled" where the LoRA explains even the pictures that it was trained on worse
    than the bare base does: of 79 such files 57 graded 10 points and more below their run's best.
    """
    pairs = [(held_out.gains(band), trained.gains(band)) for band in (None, *range(BANDS))]
    gaps = [gap(held, learned) for held, learned in pairs]
    aucs = [auc(held, learned) for held, learned in pairs]
    share = carried(held_out, trained)
    word = "spoiled" if trained.gain < -LITTLE else word_of(share)
    return Reading(share, gaps[0], tuple(gaps[1:]), aucs[0], tuple(aucs[1:]), word)


def word_of(carried: float | None) -> str:
    """The reading in a word: "learning", "enough" or "memorising"; "" where nothing is known."""
    if carried is None:
        return ""
    if carried < MEMORISING:
        return "memorising"
    return "enough" if carried < ENOUGH else "learning"


def carried(held_out: Answers, trained: Answers) -> float | None:
    """The share of the gain on trained pictures that held-out ones have too.

    None before there is a gain to speak of.
    """
    if min(held_out.pictures, trained.pictures) < LEAST or trained.gain < LITTLE:
        return None
    return round(held_out.gain / trained.gain, 6)


def gap(held_out: Sequence[float], trained: Sequence[float]) -> float | None:
    """How much greater the mean gain on trained pictures is."""
    if min(len(held_out), len(trained)) < LEAST:
        return None
    return round(_mean(trained) - _mean(held_out), 6)


def auc(held_out: Sequence[float], trained: Sequence[float]) -> float | None:
    """The share of pairs in which the trained picture gained more; half of a tie."""
    if min(len(held_out), len(trained)) < LEAST:
        return None
    pairs = [(one > other) + (one == other) / 2 for one in trained for other in held_out]
    return round(_mean(pairs), 6)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
