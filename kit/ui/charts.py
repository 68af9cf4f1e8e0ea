"""Curves as SVG text: no library, right in light and dark because lines take the text's own colour.

CHARTS at the end is the dashboard's menu: a chart is a function from a run's history to SVG, and a
row there.

A long run is drawn from BUCKETS groups of neighbouring steps: a band from the least to the greatest
loss of each, so that no spike is lost, and their means for the smooth line.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kit.events import Validated
from kit.ui.monitor.history import History

BUCKETS = 300  # two points of the band each: 600
WIDTH, HEIGHT = 760, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 12, 30
ACCENT = "#2f7ae5"
COLOURS = (ACCENT, "#c2571a", "#2e9e5b", "#9b4dca", "#b87d0c", "#5f7387")  # as many lines at most
HELD_OUT = COLOURS[1]  # the loss on images that are not trained, beside the training's
DOTS = 50  # validations, of which each has a mark
CLIPPED_FROM = 50  # points; below, every loss is inside the picture

Floats = NDArray[np.float64]
Number = TypeVar("Number", float, Floats)  # one, or each of many


class _Groups(NamedTuple):
    at: Floats  # mean step
    low: Floats
    mean: Floats
    high: Floats


def loss_chart(
    steps: Sequence[int], losses: Sequence[float], validated: Mapping[int, float] | None = None
) -> str:
    """The loss of each step, faint, its smooth course, and by step the loss on held-out images.

    Losses that are not finite are left out. An empty string before the first step.
    """
    at, values = _finite(steps, losses)
    if not len(at):
        return ""
    held_at, held = _finite(list(validated or {}), list((validated or {}).values()))
    low, high = _shown_range(values)
    low, high = min([low, *held]), max([high, *held])
    frame = _Frame(at[0], max(at[-1], at[0] + 1), nice_ticks(low, high, count=4))
    groups = _grouped(at, values)
    smooth = _smooth(groups)
    parts, place = frame.grid(), frame.place
    if len(groups.at) < len(at):
        edge = f"{place(groups.at, groups.high)} {place(groups.at[::-1], groups.low[::-1])}"
        parts.append(f'<polygon points="{edge}" fill="currentColor" fill-opacity="0.18"/>')
    else:
        parts.append(_line(place(at, values), "currentColor", width=1, opacity=0.35))
    parts.append(_line(place(groups.at, smooth), ACCENT, width=2, opacity=1))
    if len(at) == 1:
        parts += _dots(place(at, values), ACCENT)
    label = f"Loss, {values[-1]:.4g} at step {at[-1]:.0f}, smoothed {smooth[-1]:.4g}"
    if len(held):
        few = _grouped(held_at, held)
        points = place(few.at, few.mean)
        parts.append(_line(points, HELD_OUT, width=2, opacity=1))
        parts += _dots(points, HELD_OUT) if len(held) <= DOTS else []
        label += f", on held-out images {held[-1]:.4g}"
    return _svg([_title("loss"), *parts], label)


def lines_chart(
    steps: Sequence[int],
    lines: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    smooth: bool,
) -> str:
    """A curve for each of the first few names, with a key; None where a step has no value.

    An empty string where there is no value at all.
    """
    curves: dict[str, tuple[Floats, Floats]] = {}
    for name, values in list(lines.items())[: len(COLOURS)]:
        at, known = _finite(steps, [math.nan if value is None else value for value in values])
        if len(at):
            groups = _grouped(at, known)
            curves[name] = groups.at, _smooth(groups) if smooth else groups.mean
    if not curves:
        return ""
    heights = np.concatenate([ys for _, ys in curves.values()])
    low, high = float(heights.min()), float(heights.max())
    ticks = nice_ticks(min(low, 0.0) if not smooth else low, max(high, low + 1e-12), count=4)
    frame = _Frame(steps[0], max(steps[-1], steps[0] + 1), ticks)
    parts, key = frame.grid(), []
    for colour, (name, (xs, ys)) in zip(COLOURS, curves.items(), strict=False):
        parts.append(_line(frame.place(xs, ys), colour, width=2, opacity=1))
        key.append(f"<span>{swatch(colour)}{html.escape(name)} <b>{ys[-1]:.3g}</b></span>")
    svg = _svg(parts, html.escape(f"{title} by step: {', '.join(curves)}"))
    return f'<div class="kit-key">{"".join(key)}</div>{svg}'


def swatch(colour: str) -> str:
    """A curve's colour beside its name: the name itself stays readable on every page."""
    return f'<i class="kit-swatch" style="--ink:{colour}"></i>'


class _Frame(NamedTuple):
    """Where values lie in the picture."""

    x_low: float
    x_high: float
    y_ticks: list[float]

    def x(self, step: Number) -> Number:
        return LEFT + (step - self.x_low) * (WIDTH - LEFT - RIGHT) / (self.x_high - self.x_low)

    def y(self, value: Number) -> Number:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return TOP + (high - value) * (HEIGHT - TOP - BOTTOM) / (high - low)

    def place(self, xs: Floats, ys: Floats) -> str:
        inside = np.clip(ys, self.y_ticks[0], self.y_ticks[-1])
        points = zip(self.x(xs).tolist(), self.y(inside).tolist(), strict=True)
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)

    def grid(self) -> list[str]:
        steps = nice_ticks(self.x_low, self.x_high, count=6, whole=True)
        inside = [step for step in steps if self.x_low <= step <= self.x_high]
        return [
            *(_horizontal(value, self.y(value)) for value in self.y_ticks),
            *(_vertical(step, self.x(step)) for step in inside),
        ]


def nice_ticks(low: float, high: float, *, count: int, whole: bool = False) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `count` steps apart."""
    rough = max((high - low) / count, 1e-12)
    power = 10.0 ** math.floor(math.log10(rough))
    gap = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    gap = max(1.0, gap) if whole else gap
    first, last = math.floor(low / gap + 1e-9), math.ceil(high / gap - 1e-9)
    return [round(i * gap, 12) for i in range(first, max(last, first + 1) + 1)]


def smoothed(values: Sequence[float] | Floats, *, span: float) -> Floats:
    """A moving average over about `span` values, each counting less than the next; never biased."""
    keep = 1 - 2 / (span + 1)
    total = weight = 0.0
    result = np.empty(len(values))
    for i, value in enumerate(np.asarray(values).tolist()):  # one by one numpy's own are slow
        total, weight = keep * total + value, keep * weight + 1
        result[i] = total / weight
    return result


def _smooth(groups: _Groups) -> Floats:
    return smoothed(groups.mean, span=max(15, len(groups.at) / 12))


def _finite(steps: Sequence[int], losses: Sequence[float]) -> tuple[Floats, Floats]:
    at, values = np.asarray(steps, dtype=float), np.asarray(losses, dtype=float)
    is_finite = np.isfinite(values)
    return at[is_finite], values[is_finite]


def _shown_range(values: Floats) -> tuple[float, float]:
    """A few outliers do not flatten the curve; they are drawn at the picture's edge."""
    low, high = float(values.min()), float(values.max())
    if len(values) >= CLIPPED_FROM:
        low, high = (float(bound) for bound in np.percentile(values, (1, 99)))
    if high - low <= 1e-9 * max(1.0, abs(high)):
        return low - 0.05 * max(abs(low), 1e-3), high + 0.05 * max(abs(high), 1e-3)
    return low, high


def _grouped(at: Floats, values: Floats) -> _Groups:
    """Neighbouring steps together in BUCKETS groups, where that saves points."""
    if len(at) <= 2 * BUCKETS:
        return _Groups(at, values, values, values)
    starts = np.linspace(0, len(at), BUCKETS, endpoint=False).astype(int)
    counts = np.diff([*starts, len(at)])
    return _Groups(
        at=np.add.reduceat(at, starts) / counts,
        low=np.minimum.reduceat(values, starts),
        mean=np.add.reduceat(values, starts) / counts,
        high=np.maximum.reduceat(values, starts),
    )


def _horizontal(value: float, y: float) -> str:
    return (
        f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" stroke-opacity=".15"/>'
        f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
    )


def _vertical(value: float, x: float) -> str:
    foot = HEIGHT - BOTTOM
    return (
        f'<path d="M{x:.1f} {foot}v4" stroke="currentColor" stroke-opacity=".5"/>'
        f'<text x="{x:.1f}" y="{foot + 18}" text-anchor="middle">{value:.0f}</text>'
    )


def _line(points: str, colour: str, *, width: float, opacity: float) -> str:
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}" '
        f'stroke-opacity="{opacity}" stroke-linejoin="round"/>'
    )


def _dots(points: str, colour: str) -> list[str]:
    places = (point.split(",") for point in points.split())
    return [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places]


def _title(text: str) -> str:
    return f'<text x="{WIDTH - RIGHT}" y="{TOP + 14}" text-anchor="end" opacity=".6">{text}</text>'


def _svg(parts: list[str], label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{label}"><g font-family="sans-serif" font-size="11" fill="currentColor">'
        + "".join(parts)
        + "</g></svg>"
    )


# ------------------------------------------------------------------------- a run's charts

BANDS = ("t 0-249 (nearly clean)", "t 250-499", "t 500-749", "t 750-999 (nearly noise)")


def loss(past: History) -> str:
    """Each step's loss, its smooth course, and the loss on held-out images."""
    held = {at: told.loss for at, told in sorted(past.validated.items())}
    svg = loss_chart(past.steps, past.losses, held)
    last = past.losses[-1] if past.losses else math.nan
    key = f"<span>{swatch(ACCENT)}smoothed loss</span><span>newest <b>{last:.4g}</b></span>"
    if held:
        key += _validation_key(past.validated[max(held)])
    return f'<div class="kit-key">{key}</div>{svg}' if svg else ""


def _validation_key(told: Validated) -> str:
    """The newest validation, and what the bare base model comes to."""
    name = "held-out images" if told.on == "held-out" else "trained images"
    word = f", <b>{html.escape(told.word)}</b>" if told.word else ""
    prior = ""
    if told.prior_loss is not None and told.prior_base_loss is not None:
        prior = (
            f"<span>the base model's own pictures of the class word <b>{told.prior_loss:.4g}</b>"
            f" (bare base model {told.prior_base_loss:.4g})</span>"
        )
    return (
        f"<span>{swatch(HELD_OUT)}{name} <b>{told.loss:.4g}</b>"
        f" (bare base model {told.base_loss:.4g}){word}</span>{prior}"
    )


def validation_by_noise_level(past: History) -> str:
    """By quarter of the timesteps, how much of the bare base model's loss is left, in percent."""
    steps = sorted(past.validated)
    if not steps:
        return "<p>No image was validated on: set Validation split or Validation count.</p>"
    rows = [past.validated[step] for step in steps]
    bands = {
        name: [_left(row.bands, row.base_bands, band) for row in rows]
        for band, name in enumerate(BANDS)
    }
    return lines_chart(steps, bands, title="Validation, % of the base's loss", smooth=False)


def _left(loss: Sequence[float | None], base: Sequence[float | None], band: int) -> float | None:
    if band >= min(len(loss), len(base)):
        return None
    after, before = loss[band], base[band]
    return None if after is None or not before else 100 * after / before


def loss_by_noise_level(past: History) -> str:
    """The smooth loss of each quarter of the timesteps."""
    bands = {
        name: [row[i] if i < len(row) else None for row in past.bands]
        for i, name in enumerate(BANDS)
    }
    return lines_chart(past.steps, bands, title="Loss by noise level", smooth=True)


def learning_rate(past: History) -> str:
    """The rate of each part that learns."""
    return lines_chart(past.steps, past.rates, title="Learning rate", smooth=False)


CHARTS: dict[str, Callable[[History], str]] = {
    "Loss": loss,
    "Loss by noise level": loss_by_noise_level,
    "Validation by noise level": validation_by_noise_level,
    "Learning rate": learning_rate,
}
