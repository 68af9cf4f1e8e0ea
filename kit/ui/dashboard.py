"""Events to what the cell shows: progress, numbers, the loss curve, samples, notices and files.

    dashboard = Dashboard(plan)
    for event in kit.train(plan):
        dashboard(event)

Who iterates also pays for the drawing, so it happens at most twice a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import ipywidgets as widgets

from kit.errors import KitError, OutputError
from kit.events import Event, Finished, Noticed
from kit.planning import Plan
from kit.sinks import read_events
from kit.ui.charts import loss_chart
from kit.ui.gallery import Gallery, Results
from kit.ui.history import History, State
from kit.ui.look import Shown, block, escaped, root

SECONDS_BETWEEN_DRAWINGS = 0.5
PILLS: dict[State, str] = {
    "starting": "running",
    "preparing": "running",
    "training": "running",
    "done": "done",
    "stopped": "stopped",
    "failed": "failed",
}


class Dashboard(Shown):
    """A run as it happens; call it with each event. It shows itself with the first one."""

    def __init__(
        self, plan: Plan | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self.history = History()
        self.run_dir: Path | None = None
        self._clock = clock
        self._drawn_at = float("-inf")
        self._pictures_drawn = 0
        self.title = block()
        self.bar = widgets.FloatProgress(
            min=0, max=1, layout=widgets.Layout(width="100%", height="14px")
        )
        self.numbers = block()
        self.chart = block(css="kit-chart")
        self.gallery = Gallery()
        self.notes = block(css="kit-notes")
        self.root = root(
            self.title, self.bar, self.numbers, self.chart, self.gallery.root, self.notes
        )
        if plan is not None:
            self._begin_with(plan)

    def __call__(self, event: Event) -> None:
        """Take in an event; draw, unless it was drawn just now."""
        self.history.add(event)
        if not self.is_shown:
            self.show()
        is_last = isinstance(event, Finished)
        if is_last or self._clock() - self._drawn_at >= SECONDS_BETWEEN_DRAWINGS:
            self.draw()

    @classmethod
    def replay(cls, path: str | Path) -> Self:
        """The picture of a run from its folder or its events.jsonl, as far as it has come.

        Raises: OutputError where there is no such file.
        """
        file = Path(path).expanduser()
        file = file / "events.jsonl" if file.is_dir() or file.suffix == ".run" else file
        if not file.is_file():
            raise OutputError(
                f"{file} does not exist, so there is nothing to show.",
                "A run's folder is <output_dir>/<output_name>.run.",
                "Give the path of such a folder.",
            )
        dashboard = cls()
        dashboard.run_dir = file.parent
        dashboard.history.add_all(read_events(file))
        dashboard.draw()
        return dashboard

    @property
    def results(self) -> Results:
        """The newest LoRA file and the samples, to be a cell's last line."""
        return Results(self.history.newest_file, self.history.samples, self.run_dir)

    def break_off(self) -> None:
        """The run has ended with an error; what it has come to stays."""
        self.history.state = "failed"
        self.draw()

    def draw(self) -> None:
        """Bring every widget up to date; what has not changed is not sent."""
        self._drawn_at = self._clock()
        past = self.history
        self.title.value = _title(past)
        self.bar.value = _share_done(past)
        self.numbers.value = _numbers(past)
        self.chart.value = loss_chart(past.steps, past.losses)
        self.notes.value = _notes(past)
        if past.pictures != self._pictures_drawn:
            self._pictures_drawn = past.pictures
            self.gallery.update(past.samples, self.run_dir)

    def _begin_with(self, plan: Plan) -> None:
        """Name and length are known already; a run that goes on shows its past, too."""
        self.run_dir = plan.run.dir
        file = plan.run.dir / "events.jsonl"
        if plan.run.resumes and file.is_file():
            try:
                self.history.add_all(read_events(file))
            except KitError as error:  # the past is for looking at; the run does not need it
                self.history.add(Noticed(error.found))
        self.history.name, self.history.total_steps = plan.run.name, plan.total_steps
        self.history.state = "starting"
        self.draw()
        self._drawn_at = float("-inf")  # the first event is drawn at once


def _title(past: History) -> str:
    base = f"<span class='kit-quiet'>{escaped(past.base)}</span>" if past.base else ""
    pill = f"<span class='kit-state {PILLS[past.state]}'>{past.state}</span>"
    return f"<div class='kit-title'><b>{escaped(past.name)}</b>{pill}{base}</div>"


def _share_done(past: History) -> float:
    if past.preparing is not None:
        return past.preparing.done / max(1, past.preparing.total)
    return min(1.0, past.step / past.total_steps) if past.total_steps else 0.0


def _numbers(past: History) -> str:
    if past.preparing is not None:
        doing = past.preparing
        return _row([(f"preparing {doing.what}", f"{doing.done} of {doing.total}")])
    cells = [("step", f"{past.step} of {past.total_steps}")]
    if past.last is not None:
        cells += [
            ("epoch", f"{past.last.epoch:.4g}"),
            ("loss", f"{past.last.loss:.4f}"),
            ("average", f"{past.last.loss_average:.4f}"),
        ]
        cells += _rates(past.last.rates)
        cells.append(("speed", in_speed(past.seconds_per_step)))
        if past.state == "training":
            cells.append(("left", f"about {in_time(past.seconds_left)}"))
    return _row(cells)


def _rates(rates: dict[str, float]) -> list[tuple[str, str]]:
    """One number where all parts learn at the same rate."""
    values = set(rates.values())
    if len(values) == 1:
        return [("learning rate", f"{values.pop():.3g}")]
    return [(f"rate {name.replace('_', ' ')}", f"{rate:.3g}") for name, rate in rates.items()]


def _row(cells: list[tuple[str, str]]) -> str:
    texts = [f"<span>{escaped(name)}</span><b>{escaped(text)}</b>" for name, text in cells]
    return "<div class='kit-numbers'>" + "".join(f"<div>{text}</div>" for text in texts) + "</div>"


def _notes(past: History) -> str:
    notices = [escaped(text) for text in past.notices]
    files = [f"<code>{escaped(file.path)}</code>" for file in past.saved]
    return _list("Notices", notices) + _list("Files", files)


def _list(title: str, items: list[str]) -> str:
    rows = "".join(f"<li>{item}</li>" for item in items)
    return f"<div class='kit-quiet'>{title}<ul>{rows}</ul></div>" if items else ""


def in_speed(seconds: float) -> str:
    """Seconds a step, or steps a second, whichever is more than 1."""
    if not seconds:
        return "-"
    return f"{seconds:.1f} s a step" if seconds >= 1 else f"{1 / seconds:.1f} steps a second"


def in_time(seconds: float) -> str:
    """A duration as a person says it: 45 s, 12 min, 3 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
