"""What torch.compile cost a run, and when that is paid back: told once, from its own steps."""

from __future__ import annotations

import math
import re
import statistics

from kit import catalog
from kit.events import Began, Event, Finished, Loaded, Noticed, Stepped
from kit.hosts import processor
from kit.runs.measured import Work, best_of, measured_here

TELL_AFTER = 20  # steps: by then the sizes that come often were compiled
FEWEST = 4  # steps that say anything
_KEYS = {row.label: name for name, row in catalog.FAMILIES.items()}  # events tell the label
_CUDA = re.compile(r"(.+) \(cuda:\d+\)")


class CompileCost:
    """A sink that notices once what compiling cost.

    Compiling is what the steps so far took longer than as many of the later half of them. Steps
    without it are known where a run or `kit bench` has measured the same work here.
    """

    def __init__(self, work: Work) -> None:
        """work: what a step is, the family left out; see `kit.runs.measured.work_of`."""
        self._work = work
        self._steps = 0  # that this run makes
        self._seconds: list[float] = []
        self._eager: float | None = None
        self._is_told = False

    def __call__(self, event: Event) -> list[Noticed]:
        """Take note, and tell when it is known."""
        match event:
            case Began():
                self._steps = event.total_steps
            case Loaded():
                self._steps -= event.from_step
                self._eager = self._measured(event)
            case Stepped():
                self._seconds.append(event.seconds)
        is_over = isinstance(event, Finished) and len(self._seconds) >= FEWEST
        if self._is_told or not (is_over or len(self._seconds) == TELL_AFTER):
            return []
        self._is_told = True
        return [Noticed(self._told())]

    def _measured(self, loaded: Loaded) -> float | None:
        """Seconds of a step of the same work that was not compiled, if they are known."""
        gpu = _CUDA.fullmatch(loaded.device)
        family = _KEYS.get(loaded.family, loaded.family)
        work = {**self._work, "family": family, "dynamo_backend": "no"}
        found = best_of(measured_here(), gpu[1] if gpu else processor(), work)
        return found[0].seconds if found and not found[1] else None

    def _told(self) -> str:
        after = statistics.median(self._seconds[len(self._seconds) // 2 :])
        cost = max(0.0, sum(self._seconds) - len(self._seconds) * after)
        told = (
            f"compiling (dynamo_backend = {self._work['dynamo_backend']}) has cost {cost:.3g} s: "
            f"the first step took {self._seconds[0]:.3g} s, a step now takes {after:.3g} s"
        )
        if self._eager is None:
            needed = after + cost / max(1, self._steps)
            return (
                f"{told}; it pays in these {self._steps} steps if one without it takes more than "
                f"{needed:.3g} s, which a run with dynamo_backend = no would measure"
            )
        if self._eager <= after:
            return f"{told}, and without it {self._eager:.3g} s: set dynamo_backend = no"
        steps = math.ceil(cost / (self._eager - after))
        verdict = "" if steps <= self._steps else f", and this run makes {self._steps}: set no"
        return f"{told}, without it {self._eager:.3g} s: it has paid after {steps} steps{verdict}"
