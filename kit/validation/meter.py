"""The overfit meter: does the LoRA explain what it has seen better than what it has not?

No image encoder is needed. A picture's gain is the share of the bare base model's loss on it that
the LoRA took away. Gains on trained and on held-out pictures are alike while the LoRA learns the
subject; they part when it learns the pictures instead. (In the words of privacy research: a
membership signal, calibrated by a reference model; Carlini et al. 2022,
https://arxiv.org/abs/2112.03570, for diffusion models https://arxiv.org/abs/2301.13188.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kit.validation.answers import Answers, Bands
from kit.validation.questions import BANDS

LEAST = 2  # pictures of each kind, to say anything


@dataclass(frozen=True)
class Reading:
    """What the meter shows; see `kit.events.Validated`."""

    gap: float | None = None
    gaps: Bands = ()
    auc: float | None = None
    aucs: Bands = ()
    word: str = ""


def read(held_out: Answers, trained: Answers) -> Reading:
    """The meter after asking about both kinds of pictures."""
    pairs = [(held_out.gains(band), trained.gains(band)) for band in (None, *range(BANDS))]
    gaps = [gap(held, learned) for held, learned in pairs]
    aucs = [auc(held, learned) for held, learned in pairs]
    return Reading(gaps[0], tuple(gaps[1:]), aucs[0], tuple(aucs[1:]), "")


def gap(held_out: Sequence[float], trained: Sequence[float]) -> float | None:
    """How much greater the mean gain on trained pictures is."""
    if min(len(held_out), len(trained)) < LEAST:
        return None
    return round(sum(trained) / len(trained) - sum(held_out) / len(held_out), 6)


def auc(held_out: Sequence[float], trained: Sequence[float]) -> float | None:
    """The share of pairs in which the trained picture gained more; half of a tie."""
    if min(len(held_out), len(trained)) < LEAST:
        return None
    pairs = [(one > other) + (one == other) / 2 for one in trained for other in held_out]
    return round(sum(pairs) / len(pairs), 6)
