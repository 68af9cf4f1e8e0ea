"""loss.png: the curve of a run, for people who look at its folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kit import catalog
from kit.events import Event, Finished, Loaded, RolledBack, Saved, Stepped, Validated
from kit.runs.atomic_write import write_atomically


class LossChart:
    """loss.png: drawn anew at each saved file and at the end.

    earlier: what a resumed run told before, so that its picture is whole.
    """

    def __init__(self, path: Path, earlier: Iterable[Event] = ()) -> None:
        self.path = path
        self._steps: dict[int, Stepped] = {}
        self._validated: dict[int, Validated] = {}
        self._drawn: int | None = None
        for event in earlier:
            self._note(event)

    def __call__(self, event: Event) -> None:
        """Remember the step; draw where it is time to."""
        self._note(event)
        is_time = isinstance(event, Saved | Finished)
        last = max(self._steps, default=None)
        if is_time and last != self._drawn:  # the last Saved and Finished come together
            figure = loss_figure(
                [self._steps[step] for step in sorted(self._steps)],
                [self._validated[step] for step in sorted(self._validated)],
            )
            write_atomically(self.path, lambda part: figure.savefig(part, format="png"))
            self._drawn = last

    def _note(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self._steps[event.step] = event
        elif isinstance(event, Validated):
            self._validated[event.step] = event
        elif isinstance(event, Loaded):
            self._forget_after(event.from_step)
        elif isinstance(event, RolledBack):
            self._forget_after(event.step)

    def _forget_after(self, last: int) -> None:
        """What is made again is drawn as it comes out then."""
        self._steps = {step: told for step, told in self._steps.items() if step <= last}
        self._validated = {step: told for step, told in self._validated.items() if step <= last}


def loss_figure(steps: Sequence[Stepped], validated: Sequence[Validated] = ()) -> Any:
    """A matplotlib figure: the losses, and the learning rates in a thin strip below.

    validated: drawn beside the losses.

    Raises: MissingPackage where matplotlib is not installed.
    """
    figure = catalog.load("matplotlib.figure:Figure", needs="matplotlib")(
        figsize=(9, 5), dpi=110, layout="constrained"
    )
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    numbers = [event.step for event in steps]
    mark = "." if len(steps) < 3 else ""  # a line needs two points to be seen
    raw = [_finite(event.loss) for event in steps]
    average = [_finite(event.loss_average) for event in steps]
    blue, faint = "#1f5fa8", "#9dbbe0"
    losses.plot(numbers, raw, color=faint, linewidth=0.8, marker=mark, label="each step")
    losses.plot(numbers, average, color=blue, linewidth=2, marker=mark, label="average of an epoch")
    _limit_top(losses, raw)
    _draw_validation(losses, validated)
    losses.set_ylabel("loss")
    losses.legend(loc="upper right", frameon=False)
    for name in dict.fromkeys(name for event in steps for name in event.rates):
        values = [event.rates.get(name, math.nan) for event in steps]
        rates.plot(numbers, values, linewidth=1.2, marker=mark, label=name)
    if rates.lines:
        rates.legend(loc="upper right", frameon=False, fontsize="small")
    rates.set_ylabel("learning rate")
    rates.set_ylim(bottom=0)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rates.set_xlabel("step")
    rates.xaxis.get_major_locator().set_params(integer=True)
    for axes in (losses, rates):
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_validation(axes: Any, validated: Sequence[Validated]) -> None:
    """The loss on held-out images, with a mark at each validation, and the bare base model's."""
    if not validated:
        return
    orange, numbers = "#c2571a", [event.step for event in validated]
    name = "held-out images" if validated[-1].on == "held-out" else "trained images"
    values = [_finite(event.loss) for event in validated]
    axes.plot(numbers, values, color=orange, linewidth=1.5, marker="o", markersize=3, label=name)
    highest = max((value for value in values if math.isfinite(value)), default=0.0)
    if highest > axes.get_ylim()[1]:  # which the training's own losses had set
        axes.set_ylim(top=1.05 * highest)
    base = _finite(validated[-1].base_loss)
    axes.axhline(base, color=orange, linewidth=0.8, linestyle="--", label="bare base model")


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _limit_top(axes: Any, values: Sequence[float]) -> None:
    """A few steps far above the others must not flatten the rest of the curve."""
    known = sorted(value for value in values if math.isfinite(value))
    if len(known) >= 50:
        top = known[int(len(known) * 0.99)] * 1.1
        if axes.get_ylim()[0] < top < axes.get_ylim()[1]:
            axes.set_ylim(top=top)
