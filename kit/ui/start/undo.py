"""The way back: what stood in the form before each of the last ten changes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STEPS = 10
State = dict[str, Any]  # the values by setting that are not defaults, and the start's answers


@dataclass(frozen=True)
class Step:
    """A change, and what stood in the form before it."""

    what: str
    before: State


class Undo:
    """The last ten changes of the form; many letters typed in one field are one change."""

    def __init__(self, now: Mapping[str, Any]) -> None:
        self.now: State = dict(now)
        self.steps: deque[Step] = deque(maxlen=STEPS)
        self._typed_in = ""  # the field that the last change was typed in

    def record(self, now: Mapping[str, Any], what: str = "") -> None:
        """Take what stands in the form; what: what changed it, "" where it was typed."""
        now = dict(now)
        if now == self.now:
            return
        changed = sorted(name for name in {*now, *self.now} if now.get(name) != self.now.get(name))
        field = changed[0] if len(changed) == 1 and not what else ""
        if not (field and field == self._typed_in and self.steps):
            self.steps.append(Step(what or ", ".join(changed[:3]), self.now))
        self._typed_in = field
        self.now = now

    def back(self) -> Step | None:
        """The newest change, which is taken back; None where there is none."""
        if not self.steps:
            return None
        step = self.steps.pop()
        self.now, self._typed_in = step.before, ""
        return step

    def to_json(self) -> list[list[Any]]:
        """The steps, oldest first, for a file."""
        return [[step.what, step.before] for step in self.steps]

    def restore(self, steps: object) -> None:
        """Take what a file holds; what cannot be read is left out."""
        for entry in steps if isinstance(steps, list) else []:
            match entry:
                case [str(what), dict(before)]:
                    self.steps.append(Step(what, before))
