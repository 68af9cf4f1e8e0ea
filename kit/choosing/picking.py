"""Which file to keep, and how sure that is.

The one with the best mean of likeness and fidelity. How sure: the same choice is made again many
times with pictures drawn anew from those that were compared (the bootstrap, Efron 1979,
https://doi.org/10.1214/aos/1176344552); the share in which the file wins again. That tells how
much hangs on the pictures, not how right the measures are (kit/LOG.md has both).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kit.choosing.measures import Measured
from kit.randomness import random_at

DRAWS = 400
SURE, LIKELY = 0.9, 0.6  # shares of the draws
SHOWN = 3  # files that are drawn side by side


@dataclass(frozen=True)
class Choice:
    """The files, the best first, and how often each of them won."""

    ranked: tuple[Measured, ...]
    wins: tuple[float, ...]

    @property
    def best(self) -> Measured:
        """The file to keep."""
        return self.ranked[0]

    @property
    def last(self) -> Measured:
        """The file of the run's end."""
        return max(self.ranked, key=lambda file: file.step)

    @property
    def share(self) -> float:
        """How often the best one won."""
        return self.wins[0]

    @property
    def sureness(self) -> str:
        """In a word: "sure", "likely" or "close"."""
        if self.share >= SURE:
            return "sure"
        return "likely" if self.share >= LIKELY else "close"


def pick(files: Sequence[Measured]) -> Choice:
    """Rank them. files: at least one; equal ones are ranked by their step, the earlier first."""
    ranked = sorted(files, key=lambda file: (-file.score(), file.step))
    wins = _wins(ranked)
    return Choice(tuple(ranked), tuple(wins[file.file] / DRAWS for file in ranked))


def _wins(ranked: Sequence[Measured]) -> Counter[str]:
    pictures, others = len(ranked[0].likeness), len(ranked[0].fidelity)
    random = random_at(0, "which file to keep")
    wins: Counter[str] = Counter()
    for _ in range(DRAWS):
        drawn = random.integers(pictures, size=pictures).tolist() if pictures else []
        beside = random.integers(others, size=others).tolist() if others else []
        wins[max(ranked, key=lambda file: file.score(drawn, beside)).file] += 1
    return wins
