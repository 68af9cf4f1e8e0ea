"""When enough is enough: validation after validation without a better one."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Patience:
    """Counts validations since the best one. A run that goes on counts anew.

    most: how many are borne; 0: any number.
    """

    most: int
    best: float = math.inf
    best_step: int = 0
    since: int = 0

    def is_lost(self, step: int, loss: float) -> bool:
        """Take in a validation's loss; True where it is the last that is borne."""
        if loss < self.best:
            self.best, self.best_step, self.since = loss, step, 0
        else:
            self.since += 1
        return 0 < self.most <= self.since
