"""What lies in a run's state beside weights and optimizer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass
class Losses:
    """The losses of about one epoch of batches, as the progress shows them."""

    window: int
    recent: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with none."""
        self.recent = deque(maxlen=max(1, self.window))

    def add(self, losses: Iterable[float]) -> None:
        """Take the losses of a step's batches."""
        self.recent.extend(losses)

    @property
    def average(self) -> float:
        """Mean over the window."""
        return sum(self.recent) / max(1, len(self.recent))


class Kept(Protocol):
    """What lies in a run's state beside weights and optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; {} where an older state knows nothing of it."""
        ...
