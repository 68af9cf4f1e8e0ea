"""Events to what the cell shows: progress, numbers, curves, samples, notices and files.

    dashboard = Dashboard(plan)
    for event in kit.train(plan):
        dashboard(event)

Who iterates also pays for the drawing, so numbers are drawn at most twice a second; the curve, most
of what is sent, more and more seldom, as it changes less and less.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import ipywidgets as widgets

from kit.control import RunControl
from kit.errors import KitError, OutputError
from kit.events import Event, Failed, Finished, Noticed, Paused, RateChanged, Resumed
from kit.planning import Plan
from kit.reading.paths import is_file, is_folder, path_of
from kit.runs.run import Run
from kit.sinks import read_events
from kit.ui.charts import CHARTS
from kit.ui.errors import failure
from kit.ui.look import Shown, block, escaped, root
from kit.ui.monitor.choice import ChoicePanel
from kit.ui.monitor.controls import Controls
from kit.ui.monitor.downloads import buttons
from kit.ui.monitor.gallery import Gallery
from kit.ui.monitor.history import History, State
from kit.ui.monitor.results import Results, files_html, newest_html
from kit.ui.monitor.words import notes_of, numbers_of, share_done, title_of

SECONDS_BETWEEN_DRAWINGS = 0.5
SECONDS_BETWEEN_CHARTS = 1.0
CHARTS_A_RUN = 500  # about: after so many seconds a chart waits for this part of the run's time


class Dashboard(Shown):
    """A run as it happens; call it with each event. It shows itself with the first one.

    control: of the run that is shown, if it is at work in this kernel; they bring the buttons.
    shows_itself: not where it is a part of something that is shown.
    """

    def __init__(
        self,
        plan: Plan | None = None,
        *,
        control: RunControl | None = None,
        shows_itself: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.history = History()
        self.run_dir: Path | None = None
        self._clock, self._began = clock, clock()
        self._drawn_at = self._chart_drawn_at = float("-inf")
        self._pictures_drawn, self._files_drawn = 0, ("", 0)
        self._control, self._shows_itself = control, shows_itself
        self.title, self.numbers, self.failure = block(), block(), block()
        self.bar = widgets.FloatProgress(
            min=0, max=1, layout=widgets.Layout(width="100%", height="8px")
        )
        self.controls = Controls(control, self.tell_request) if control else None
        self.view = widgets.ToggleButtons(
            options=list(CHARTS),
            layout=widgets.Layout(width="100%", display="none"),
            style={"button_width": "auto"},
        )
        self.view.observe(lambda _: self._draw_chart(), names="value")
        self.chart = block(css="kit-chart")
        self.gallery = Gallery()
        self.notes = block(css="kit-notes")
        self.newest, self.files = block(css="kit-newest-file"), block(css="kit-notes")
        self.downloads = widgets.HBox([], layout=widgets.Layout(flex_flow="row wrap"))
        shown = [self.title, self.bar, self.numbers, self.failure]
        shown += [self.controls.root] if self.controls else []
        shown += [self.newest, self.downloads, self.view, self.chart, self.gallery.root]
        self.choice = ChoicePanel()
        shown += [self.choice.box, self.files, self.notes]
        self.root = root(*shown)
        self.root.add_class("kit-run")  # what follow.js looks for
        if plan is not None:
            self.expect(plan.run, plan.total_steps)

    def __call__(self, event: Event) -> None:
        """Take in an event; draw, unless it was drawn just now."""
        self.history.add(event)
        if self._shows_itself and not self.is_shown:
            self.show()
        is_last = isinstance(event, Finished | Failed | Paused)  # nothing may follow for long
        is_awaited = isinstance(event, Resumed | RateChanged) or getattr(event, "wished", False)
        is_due = self._clock() - self._drawn_at >= SECONDS_BETWEEN_DRAWINGS
        if is_last or is_awaited or is_due:
            self.draw(whole=is_last)

    @classmethod
    def replay(cls, path: str | Path) -> Self:
        """The picture of a run from its folder or its events.jsonl, as far as it has come.

        Raises: OutputError where there is no such file.
        """
        file = events_file(path)
        events = read_events(file)
        dashboard = cls()
        dashboard.run_dir = file.parent
        dashboard.history.add_all(events)
        dashboard.draw(whole=True)
        return dashboard

    @property
    def results(self) -> Results:
        """The newest LoRA file and the samples, to be a cell's last line."""
        return Results.of(self.history, self.run_dir)

    def break_off(self, why: str = "", state: State = "failed") -> None:
        """The run has ended with an error or was broken off; what it has come to stays."""
        self.history.state = state
        self.history.failure = why or self.history.failure
        self.draw(whole=True)

    def fail(self, error: BaseException) -> None:
        """The run has ended with this error: what to do, and for experts where it was."""
        self.failure.value = failure(error, resumes=self.history.step > 0)
        self.history.failure = ""  # the panel says it
        self.break_off()

    def end(self) -> None:
        """Nothing more will come; nothing more can be requested."""
        if self.controls:
            self.controls.end()
        self.draw(whole=True)

    def tell_request(self) -> None:
        """Show at once that something was requested; on whatever thread."""
        self.title.value = title_of(self.history, self._control)

    def say(self, text: str) -> None:
        """A sentence of who looks at the run, beneath its numbers."""
        self.failure.value = f"<div class='kit-quiet'>{escaped(text)}</div>" if text else ""

    def forget(self) -> None:
        """What was told is told anew from the beginning."""
        self.history = History()
        self._pictures_drawn, self._files_drawn = 0, ("", 0)

    def draw(self, *, whole: bool = False) -> None:
        """Bring every widget up to date; what has not changed is not sent."""
        self._drawn_at = self._clock()
        past = self.history
        self.title.value = title_of(past, self._control)
        self.bar.value = share_done(past)
        self.numbers.value = numbers_of(past)
        if whole or self._drawn_at - self._chart_drawn_at >= self._chart_pause():
            self._draw_chart()
        self.notes.value = notes_of(past)
        if self.controls:
            self.controls.update(rests=past.state == "paused", groups=past.rates)
        if past.pictures != self._pictures_drawn:
            self._pictures_drawn = past.pictures
            self.gallery.update(past.samples, self.run_dir)
        newest = past.newest_file
        if whole or (newest, len(past.saved)) != self._files_drawn:
            self._files_drawn = newest, len(past.saved)
            _send(self.newest, newest_html(newest, self.run_dir))
            _send(self.files, files_html(past.saved, self.run_dir))
            self.downloads.children = buttons([newest] if newest else [])
        if whole:
            is_over = past.state in ("done", "stopped") and bool(newest)
            self.choice.show_of(self.run_dir, is_over=is_over)

    def _chart_pause(self) -> float:
        """A curve of many hours looks the same a second later: wait for 1/500 of its time."""
        return max(SECONDS_BETWEEN_CHARTS, (self._clock() - self._began) / CHARTS_A_RUN)

    def _draw_chart(self) -> None:
        self._chart_drawn_at = self._clock()
        past = self.history
        if past.steps:
            self.view.layout.display = None
        self.chart.value = CHARTS[self.view.value](past)

    def expect(self, run: Run, total_steps: int) -> None:
        """Name and length are known already; a run that goes on shows its past, too."""
        self.run_dir = run.dir
        file = run.dir / "events.jsonl"
        if run.resumes and file.is_file():
            try:
                self.history.add_all(read_events(file))
            except KitError as error:  # the past is for looking at; the run does not need it
                self.history.add(Noticed(error.found))
        self.history.name, self.history.total_steps = run.name, total_steps
        self.history.state, self.history.failure = "starting", ""
        self.draw(whole=True)
        self._drawn_at = float("-inf")  # the first event is drawn at once


def _send(piece: widgets.HTML, html: str) -> None:
    """Only what is new: what was folded open would close."""
    if piece.value != html:
        piece.value = html


def events_file(path: str | Path) -> Path:
    """The events.jsonl of a run's folder, or the file itself.

    Raises: OutputError where there is no such file.
    """
    file = path_of(path)
    file = file / "events.jsonl" if is_folder(file) or file.suffix == ".run" else file
    if not is_file(file):
        raise OutputError(
            f"{file} does not exist, so there is nothing to show.",
            "A run's folder is <output_dir>/<output_name>.run.",
            "Give the path of such a folder.",
        )
    return file
