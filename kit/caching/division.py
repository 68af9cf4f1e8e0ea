"""How the processes of one run divide what is to be encoded: each its part, shared on the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Division:
    """This process's part; `meet` returns when all of them have come so far."""

    count: int = 1
    rank: int = 0
    meet: Callable[[], object] = lambda: None

    def own(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every so many, so that long and short ones are divided alike."""
        return items[self.rank :: self.count]

    @property
    def keeps_hashes(self) -> bool:
        """One of them writes down what was looked at."""
        return self.rank == 0


UNDIVIDED = Division()
