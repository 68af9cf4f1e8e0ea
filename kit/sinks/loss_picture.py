"""loss.png: the curve of a run, for people who look at its folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from kit import catalog
from kit.events import (
    Event,
    Failed,
    Finished,
    Loaded,
    Noticed,
    RolledBack,
    Saved,
    Stepped,
    Validated,
)
from kit.runs.atomic_write import write_atomically
from kit.runs.disk import why_unwritten
from kit.sinks.loss_curve import LossCurve, finite

BLUE, FAINT, ORANGE, GREY = "#1f5fa8", "#9dbbe0", "#c2571a", "#6b6b6b"
SHARE = 0.03  # of a run's time, at most, for pictures of it while it trains
PRIOR = "the base's own of the class word"


class LossChart:
    """loss.png: drawn anew at saved files and at the end.

    Whoever trains waits for it (0.1 to 0.3 s), so that it takes at most SHARE of the time: of files
    that follow each other quickly only some are drawn.

    There is one figure for all drawings. Each new one would leave some MB (of 20,000 steps 100 MB)
    in circles of references, for Python's collector to find much later. It is made and laid out
    when the run is loaded: what matplotlib takes (30 MB, and most of a second) is taken before the
    first step. A CPU, whose steps are long, has told the first one before.

    earlier: what a resumed run told before, so that its picture is whole.
    """

    def __init__(
        self,
        path: Path,
        earlier: Iterable[Event] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.curve = LossCurve()
        self._figure: Any = None
        self._drawn: int | None = None
        self._drawn_at, self._cost = clock(), 0.0
        self._clock = clock
        self._waits = False
        for event in earlier:
            self._note(event)

    def __call__(self, event: Event) -> list[Noticed]:
        """Remember the step; draw where it is time to. A disk that refuses is tried again then."""
        self._note(event)
        if self._figure is None and self._is_ready(event):
            self._figure = loss_figure(self.curve)
            began = self._clock()
            self._figure.draw_without_rendering()
            self._drawn_at = self._clock()
            self._cost = self._drawn_at - began
        last = self.curve.steps[-1] if self.curve.steps else None
        if self._is_due(event) and last != self._drawn:
            try:
                self._draw()
            except OSError as error:
                why = why_unwritten(error, self.path)
                return [Noticed(f"{self.path} cannot be written ({why}); the run goes on")]
            self._drawn = last
        return []

    def _is_due(self, event: Event) -> bool:
        if isinstance(event, Saved):
            return self._clock() - self._drawn_at >= self._cost / SHARE
        has_begun = self._figure is not None
        return isinstance(event, Finished) or (isinstance(event, Failed) and has_begun)

    def _is_ready(self, event: Event) -> bool:
        """Whether it is time for the figure: before the first step, or on a CPU after it."""
        if isinstance(event, Loaded):
            self._waits = event.device.startswith("CPU")
            return not self._waits
        if not isinstance(event, Stepped):
            return False
        was_waiting, self._waits = self._waits, False
        return not was_waiting

    def _draw(self) -> None:
        began = self._clock()
        if self._figure is None:
            self._figure = loss_figure(self.curve)
        else:
            show(self._figure, self.curve)
        figure = self._figure
        write_atomically(self.path, lambda part: figure.savefig(part, format="png"))
        self._drawn_at = self._clock()
        self._cost = self._drawn_at - began

    def _note(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self.curve.add(event)
        elif isinstance(event, Validated):
            self.curve.validate(event)
        elif isinstance(event, Loaded):
            self.curve.forget_after(event.from_step)
        elif isinstance(event, RolledBack):
            self.curve.forget_after(event.step)


def loss_figure(curve: LossCurve) -> Any:
    """A matplotlib figure: the losses, and the learning rates in a thin strip below.

    Raises: MissingPackage where matplotlib is not installed.
    """
    figure = catalog.load("matplotlib.figure:Figure", needs="matplotlib")(
        figsize=(9, 5), dpi=110, layout="constrained"
    )
    # Without a canvas of its own each drawing makes one, whose 4 MB are another circle.
    catalog.load("matplotlib.backends.backend_agg:FigureCanvasAgg")(figure)
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    losses.plot([], [], color=FAINT, linewidth=0.8, label="each step")
    losses.plot([], [], color=BLUE, linewidth=2, label="average of an epoch")
    losses.set_ylabel("loss")
    losses.legend(loc="upper right", frameon=False)
    rates.set_ylabel("learning rate")
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rates.set_xlabel("step")
    rates.xaxis.get_major_locator().set_params(integer=True)
    for axes in (losses, rates):
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    show(figure, curve)
    return figure


def show(figure: Any, curve: LossCurve) -> None:
    """Have the figure show this curve instead of what it showed before."""
    losses, rates = figure.axes
    for line in losses.lines[2:]:
        line.remove()
    for line, values in zip(losses.lines, (curve.losses, curve.averages), strict=True):
        line.set_data(*curve.points(values))
    for name, values in curve.rates.items():
        line = next((line for line in rates.lines if line.get_label() == name), None)
        if line is None:
            (line,) = rates.plot([], [], linewidth=1.2, label=name)
            rates.legend(loc="upper right", frameon=False, fontsize="small")
        line.set_data(*curve.points(values))
    mark = "." if len(curve.steps) < 3 else ""  # a line needs two points to be seen
    for axes in (losses, rates):
        for line in axes.lines:
            line.set_marker(mark)
        axes.relim()
        axes.autoscale(enable=True)
        axes.autoscale_view()
    _limit_top(losses, curve)
    _draw_validation(losses, [curve.validated[step] for step in sorted(curve.validated)])
    rates.set_ylim(bottom=0)


def _draw_validation(axes: Any, validated: Sequence[Validated]) -> None:
    """The loss on held-out images, with a mark at each validation, and the bare base model's."""
    if not validated:
        return
    numbers = [event.step for event in validated]
    name = "held-out images" if validated[-1].on == "held-out" else "trained images"
    values = [finite(event.loss) for event in validated]
    axes.plot(numbers, values, color=ORANGE, linewidth=1.5, marker="o", markersize=3, label=name)
    highest = max((value for value in values if math.isfinite(value)), default=0.0)
    if highest > axes.get_ylim()[1]:  # which the training's own losses had set
        axes.set_ylim(top=1.05 * highest)
    prior = [math.nan if e.prior_loss is None else finite(e.prior_loss) for e in validated]
    if not all(map(math.isnan, prior)):
        axes.plot(numbers, prior, color=GREY, linewidth=1.2, marker="o", markersize=3, label=PRIOR)
    base = finite(validated[-1].base_loss)
    axes.axhline(base, color=ORANGE, linewidth=0.8, linestyle="--", label="bare base model")
    axes.legend(loc="upper right", frameon=False)


def _limit_top(axes: Any, curve: LossCurve) -> None:
    """A few steps far above the others must not flatten the rest of the curve."""
    top = curve.usual_top() * 1.1
    if not math.isnan(top) and axes.get_ylim()[0] < top < axes.get_ylim()[1]:
        axes.set_ylim(top=top)
