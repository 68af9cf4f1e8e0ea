"""A run's speed and memory, remembered for the next forecast on this machine."""

from __future__ import annotations

import re
import statistics
import time
from array import array
from contextlib import suppress

from kit import catalog
from kit.events import Event, Loaded, Sampled, Stepped
from kit.hosts import processor
from kit.runs.measured import Measured, Work, remember

WARM_UP = 3  # steps that are left out: kernels are chosen, files are read for the first time
FEWEST = 5  # steps after them that make a figure
_KEYS = {row.label: name for name, row in catalog.FAMILIES.items()}  # events tell the label
_CUDA = re.compile(r"(.+) \(cuda:\d+\)")


class Measuring:
    """A sink that writes one row when the run is over, however it ended."""

    def __init__(self, work: Work) -> None:
        """work: what a step is, the family left out; see `kit.runs.measured.work_of`."""
        self._work, self._family, self._device = work, "", ""
        self._seconds, self._pictures = array("f"), array("f")  # a few bytes a step
        self._megabytes, self._steps, self._last = 0, 0, time.monotonic()

    def __call__(self, event: Event) -> None:
        """Take note."""
        match event:
            case Loaded():
                gpu = _CUDA.fullmatch(event.device)
                self._device = gpu[1] if gpu else processor()
                self._family = _KEYS.get(event.family, event.family)
            case Stepped():
                self._steps += 1
                self._megabytes = max(self._megabytes, event.megabytes)
                if self._steps > WARM_UP and event.seconds > 0:
                    self._seconds.append(event.seconds)
            case Sampled():
                self._pictures.append(time.monotonic() - self._last)
        self._last = time.monotonic()

    def close(self) -> None:
        """Write the row, if there were steps enough."""
        if len(self._seconds) < FEWEST or not self._device:
            return
        row = Measured(
            self._device,
            {**self._work, "family": self._family},
            round(statistics.median(self._seconds), 4),
            self._megabytes,
            round(statistics.median(self._pictures), 3) if self._pictures else 0.0,
        )
        with suppress(OSError):  # a forecast less, which is no reason to disturb anybody
            remember(row)
