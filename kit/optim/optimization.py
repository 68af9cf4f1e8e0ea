"""An optimizer with its learning-rate scheduler, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch.optim import Optimizer

# What classes of other packages raise where a value is not one of theirs.
BREAKS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class LrScheduler(Protocol):
    """What the loop needs of a learning-rate scheduler."""

    def step(self) -> None:
        """Go on by one optimizer step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


@dataclass
class Optimization:
    """An optimizer and its scheduler, and how they came about."""

    optimizer: Optimizer
    scheduler: LrScheduler
    described: str  # as ss_optimizer: module.Class(name=value,...)
    own_rate: bool
    one_rate: bool = False  # all groups must learn at the same rate
    name: str = ""  # in the menu; that of the fallback where one took over
    notices: tuple[str, ...] = ()
    asked: str = ""  # its name in the settings
