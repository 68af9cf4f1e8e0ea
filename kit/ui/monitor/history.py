"""The history of a run, gathered from its events: numbers, samples, files. No widgets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from kit.events import (
    Began,
    Cached,
    Event,
    Failed,
    Finished,
    Lightened,
    Loaded,
    Noticed,
    Paused,
    RateChanged,
    Resumed,
    RolledBack,
    Sampled,
    Saved,
    Skipped,
    Stepped,
    Validated,
)

State: TypeAlias = Literal[
    "starting", "preparing", "training", "paused", "done", "stopped", "failed"
]
OVER: tuple[State, ...] = ("done", "stopped", "failed")
SPEED_OVER = 20  # steps that the speed is averaged over
NOTICES_KEPT = 20
CHANGES_KEPT = 10


@dataclass
class History:
    """A run's past; `add` is the only thing that changes it."""

    name: str = ""
    total_steps: int = 0
    epochs: float = 0.0  # in all; 0 where an older version told none
    state: State = "starting"
    base: str = ""  # family, device and precision
    preparing: Cached | None = None
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    rates: dict[str, list[float | None]] = field(default_factory=dict)  # by part, as long as steps
    bands: list[tuple[float | None, ...]] = field(default_factory=list)  # as long as steps
    last: Stepped | None = None
    validated: dict[int, Validated] = field(default_factory=dict)  # by step
    samples: dict[int, dict[int, Sampled]] = field(default_factory=dict)  # step, then prompt
    pictures: int = 0  # grows with every sample
    saved: list[Saved] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    changes: list[tuple[int, str]] = field(default_factory=list)  # step and what was requested
    failure: str = ""
    path: str = ""  # the final LoRA file
    _prompts: dict[int, str] = field(default_factory=dict)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=SPEED_OVER))

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self.steps[-1] if self.steps else 0

    @property
    def seconds_per_step(self) -> float:
        """Over the last steps; 0 before the first."""
        return sum(self.recent) / len(self.recent) if self.recent else 0.0

    @property
    def seconds_left(self) -> float:
        """At the present speed; drawing samples and saving come on top."""
        return max(0, self.total_steps - self.step) * self.seconds_per_step

    @property
    def newest_file(self) -> str:
        """The final LoRA file, or the newest one before."""
        return self.path or (self.saved[-1].path if self.saved else "")

    def add_all(self, events: Iterable[Event]) -> None:
        """Take in many events."""
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case Began():
                self.name, self.total_steps = event.name, event.total_steps
                self.epochs = event.epochs
                self.state, self.path, self.failure = "starting", "", ""
            case Noticed():
                self._notice(event.text)
            case Cached():
                self.state, self.preparing = "preparing", event
            case Loaded():
                self._go_on_from(event.from_step)
                precision = "fp32" if event.precision == "no" else event.precision
                self.base = f"{event.family}, {event.device}, {precision}"
            case Stepped():
                self._step(event)
            case Validated():
                self.validated[event.step] = event
            case Sampled():
                self.samples.setdefault(event.step, {})[self._row_of(event)] = event
                self.pictures += 1
            case Saved():
                self._save(event)
            case Paused():
                self.state = "paused"
                self._change(event.step, "paused")
            case Resumed():
                self.state = "training"
            case RateChanged():
                told = ", ".join(f"{part} x {by:.4g}" for part, by in event.factors.items())
                self._change(event.step, f"learning rate: {told}")
            case Skipped():
                self._change(event.step, f"skipped: {event.reason}")
            case RolledBack():
                self._go_on_from(event.step)
                self._change(event.step, f"came back from step {event.from_step}: {event.reason}")
                self._change(event.step, f"goes on with {event.change}")
            case Lightened():
                self._change(event.step, f"too little memory: goes on with {event.given_up}")
            case Failed():
                self.state, self.preparing, self.failure = "failed", None, event.text
            case Finished():
                self.state = "done" if event.reason == "done" else "stopped"
                self.preparing, self.path = None, event.path

    def _go_on_from(self, step: int) -> None:
        """Forget what came after the step that a resumed run goes on from: it is lived anew.

        What a person asked for is not: a picture of a typed prompt, a file of Save now.
        """
        self.state, self.preparing = "training", None
        kept = sum(past <= step for past in self.steps)
        del self.steps[kept:], self.losses[kept:], self.bands[kept:]
        for values in self.rates.values():
            del values[kept:]
        self.changes = [change for change in self.changes if change[0] <= step]
        self.validated = {at: told for at, told in self.validated.items() if at <= step}
        kept_rows = {
            at: {i: drawn for i, drawn in row.items() if at <= step or drawn.wished}
            for at, row in self.samples.items()
        }
        self.samples = {at: row for at, row in kept_rows.items() if row}
        self.saved = [file for file in self.saved if file.step <= step or file.wished]

    def _step(self, event: Stepped) -> None:
        self.state, self.preparing, self.last = "training", None, event
        for part in event.rates:
            self.rates.setdefault(part, [None] * len(self.steps))
        for part, values in self.rates.items():
            values.append(event.rates.get(part))
        self.steps.append(event.step)
        self.losses.append(event.loss)
        self.bands.append(event.bands)
        self.recent.append(event.seconds)

    def _row_of(self, event: Sampled) -> int:
        """The prompt's place; one that was typed while it trained may have another's."""
        row = event.index
        while self._prompts.setdefault(row, event.prompt) != event.prompt:
            row += 1
        return row

    def _change(self, step: int, text: str) -> None:
        self.changes = [*self.changes, (step, text)][-CHANGES_KEPT:]

    def _save(self, event: Saved) -> None:
        gone = {Path(path).name for path in (*event.removed, event.path)}
        self.saved = [file for file in self.saved if Path(file.path).name not in gone]
        self.saved.append(event)

    def _notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices = [*self.notices, text][-NOTICES_KEPT:]
