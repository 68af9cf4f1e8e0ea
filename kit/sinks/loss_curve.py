"""A run's losses and rates as loss.png needs them: a few bytes a step, a point where one is seen.

A run of 20,000 steps keeps 0.7 MB here; its events would be 20. Whatever its length, a picture is
drawn of some hundred points a line.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from kit.events import Stepped, Validated

COLUMNS = 400  # of the picture; each shows its lowest and its highest value


class LossCurve:
    """Numbers by step, from the first to the last that was told."""

    def __init__(self, steps: Iterable[Stepped] = ()) -> None:
        self.steps = array("q")
        self.losses, self.averages = array("d"), array("d")
        self.rates: dict[str, array[float]] = {}
        self.validated: dict[int, Validated] = {}
        for event in steps:
            self.add(event)

    def add(self, event: Stepped) -> None:
        """Take a step; what was told of it and of later ones before is forgotten."""
        if self.steps and event.step <= self.steps[-1]:
            self.forget_after(event.step - 1)
        known = len(self.steps)
        self.steps.append(event.step)
        self.losses.append(finite(event.loss))
        self.averages.append(finite(event.loss_average))
        for name in event.rates:
            self.rates.setdefault(name, array("d", [math.nan]) * known)
        for name, values in self.rates.items():
            values.append(event.rates.get(name, math.nan))

    def validate(self, event: Validated) -> None:
        """Take a validation, the last of its step."""
        self.validated[event.step] = event

    def forget_after(self, last: int) -> None:
        """What comes after this step is made again, and drawn as it comes out then."""
        keep = bisect_right(self.steps, last)
        del self.steps[keep:]
        for values in (self.losses, self.averages, *self.rates.values()):
            del values[keep:]
        self.validated = {step: told for step, told in self.validated.items() if step <= last}

    def usual_top(self) -> float:
        """What 99 of 100 losses do not exceed; NaN of few losses."""
        known = sorted(loss for loss in self.losses if not math.isnan(loss))
        return known[int(len(known) * 0.99)] if len(known) >= 50 else math.nan

    def points(self, values: Sequence[float]) -> tuple[list[int], list[float]]:
        """Steps and values of a line: all of them, or the lowest and highest of each column."""
        if len(self.steps) <= 2 * COLUMNS:
            return list(self.steps), list(values)
        shown: list[int] = []
        for column in range(COLUMNS):
            first = column * len(values) // COLUMNS
            places = range(first, (column + 1) * len(values) // COLUMNS)
            known = [place for place in places if not math.isnan(values[place])] or [first]
            ends = {min(known, key=values.__getitem__), max(known, key=values.__getitem__)}
            shown += sorted(ends)
        return [self.steps[place] for place in shown], [values[place] for place in shown]


def finite(value: float) -> float:
    """The value, or NaN, which is not drawn."""
    return value if math.isfinite(value) else math.nan
