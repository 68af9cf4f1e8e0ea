"""The guardian: what a step came to is judged before it moves the weights.

Not finite is always a fault. An explosion is a value far beyond nearly all of those before it: a
loss beyond 20 times, or a gradient beyond 100 times, what 9 of 10 of the last 128 were. Losses are
compared within their noise level, since they differ by it more than by anything else; the bounds
are wide because a clipped gradient harms little, and a healthy run must never be stopped.

A fault is skipped and counted, as long as there are few. Beyond that, "rollback" goes back to the
last good state, or where that leads to a fault again to the one before it, and learns on with
another loss scale or half the rate, a few times; then, as
"mild" does at once, the run ends and says where it was and why. All of it is a function of the
steps, and the counts lie in the run's state: a run that goes on repeats it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kit.diffusion.losses import BANDS
from kit.training.soundness import Explodes, NotFinite, Unsound
from kit.training.step import StepResult

IN_A_ROW = 3  # steps that may be skipped one after the other
WINDOW, IN_WINDOW = 100, 10  # and within the last so many
ROLLBACKS = 3  # in a whole run
OVERFLOWS = 40  # steps in a row that fp16's scaler leaves out: by then its scale is below 1e-7
LOSS_FACTOR, NORM_FACTOR = 20.0, 100.0
SEEN, LEAST_SEEN = 128, 32  # values that are remembered, and without which nothing explodes
USUAL = 0.9  # the share of them that counts as usual


def _window() -> deque[float]:
    return deque(maxlen=SEEN)


@dataclass
class Guardian:
    """Watches the steps of a run; mode: "off", "mild" or "rollback"."""

    mode: str = "mild"
    skips: deque[int] = field(default_factory=lambda: deque(maxlen=IN_WINDOW))
    skipped: int = 0  # in all
    rollbacks: int = 0
    back_at: int = -1  # the step that it last went back to
    overflows: int = 0  # in a row
    losses: tuple[deque[float], ...] = field(
        default_factory=lambda: tuple(_window() for _ in range(BANDS))
    )
    norms: deque[float] = field(default_factory=_window)

    def watch(self, result: StepResult) -> None:
        """Look at a step that has not yet moved the weights.

        Raises: Explodes.
        """
        if self.mode == "off":
            return
        for loss, seen in zip(result.bands, self.losses, strict=False):
            if loss is not None and (usual := _usual(seen)) and loss > LOSS_FACTOR * usual:
                raise Explodes("explosion", f"the loss explodes: {loss:.4g} after {usual:.4g}")
        norm, usual = result.norm, _usual(self.norms)
        if usual and norm > NORM_FACTOR * usual:
            raise Explodes("explosion", f"the gradient explodes: {norm:.4g} after {usual:.4g}")

    def took(self, result: StepResult, *, overflowed: bool) -> None:
        """Remember a step that moved the weights, or that fp16's scaler left out.

        Raises: NotFinite where the scaler leaves out one step after the other.
        """
        self.overflows = self.overflows + 1 if overflowed else 0
        if self.overflows > OVERFLOWS and self.mode != "off":
            raise NotFinite("gradient", f"{self.overflows} steps in a row overflow in fp16")
        for loss, seen in zip(result.bands, self.losses, strict=False):
            if loss is not None:
                seen.append(loss)
        if result.norm:
            self.norms.append(result.norm)

    def may_skip(self, step: int) -> bool:
        """Count a fault of this step; False where there are too many to go on skipping."""
        if self.mode == "off":
            return False
        many = len(self.skips) == IN_WINDOW and self.skips[0] > step - WINDOW
        last = list(self.skips)[-IN_A_ROW:]
        if many or last == list(range(step - IN_A_ROW, step)):
            return False
        self.skips.append(step)
        self.skipped += 1
        return True

    def may_roll_back(self, fault: Unsound) -> bool:
        """Going back may help: not with pictures that are broken themselves."""
        return self.mode == "rollback" and not fault.is_of_data and self.rollbacks < ROLLBACKS

    def rolled_back(self, count: int, step: int) -> None:
        """So many times by now, to this step; what was skipped on the way counts no more."""
        self.rollbacks, self.back_at, self.overflows = count, step, 0
        self.skips.clear()

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on must know."""
        return {
            "skips": list(self.skips),
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
            "back_at": self.back_at,
            "overflows": self.overflows,
            "losses": [list(seen) for seen in self.losses],
            "norms": list(self.norms),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; a state of an older version knows nothing of it."""
        self.skips = deque(state.get("skips", ()), maxlen=IN_WINDOW)
        self.skipped = int(state.get("skipped", 0))
        self.rollbacks = int(state.get("rollbacks", 0))
        self.back_at = int(state.get("back_at", -1))
        self.overflows = int(state.get("overflows", 0))
        kept = state.get("losses", ())
        self.losses = tuple(
            deque(kept[band] if band < len(kept) else (), maxlen=SEEN) for band in range(BANDS)
        )
        self.norms = deque(state.get("norms", ()), maxlen=SEEN)


def _usual(seen: deque[float]) -> float:
    """What most values were below; 0 where there are too few to tell."""
    if len(seen) < LEAST_SEEN:
        return 0.0
    return sorted(seen)[math.ceil(USUAL * len(seen)) - 1]
