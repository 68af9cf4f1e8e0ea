"""A plan in pictures: the learning rate over the run, the buckets, the network's size.

Drawn from the same plan that the run obeys, as SVG text like the curves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from kit import catalog
from kit.catalog.lr_schedules import Formula, ScheduleParams, factor_at
from kit.dataset.buckets import Size
from kit.planning import Plan
from kit.planning.lora_size import network_size
from kit.settings import Basic, Settings, effective
from kit.ui.charts import ACCENT, nice_ticks, swatch
from kit.ui.look import escaped

WIDTH, HEIGHT = 380, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 16, 26
POINTS = 160
MOST_MARKS = 60  # saves or samples that are drawn as ticks; more would be a bar
MOST_BUCKETS = 14
TEXT_COLOUR = "#c77d0a"
Point = tuple[float, float]


def plan_pictures(plan: Plan, family: str) -> str:
    """All pictures of a plan as HTML; family: the base model's, "" where it is not known."""
    network = network_facts(plan.settings, family)
    figures = (rate_picture(plan), bucket_picture(plan.buckets), network)
    return f"<div class='kit-pictures'>{''.join(f'<div>{f}</div>' for f in figures if f)}</div>"


# --------------------------------------------------------------------------- learning rate


def rate_picture(plan: Plan) -> str:
    """Each part's rate at every step, with ticks where LoRA files and samples fall."""
    steps = _spread(plan.total_steps)
    curves = [
        (name, colour, [(step, rate_at(step)) for step in steps])
        for name, colour, rate_at in _rates(plan.settings.basic, plan.schedule_params)
    ]
    highest = max((rate for _, _, points in curves for _, rate in points), default=0.0)
    if not curves or not highest:
        return ""
    last = max(1, plan.total_steps - 1)
    ticks = nice_ticks(0, highest, count=3)

    def place(point: Point) -> str:
        x = LEFT + point[0] / last * (WIDTH - LEFT - RIGHT)
        return f"{x:.1f},{TOP + (1 - point[1] / ticks[-1]) * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [_level(value, ticks[-1]) for value in ticks]
    parts += [
        f'<polyline points="{" ".join(map(place, points))}" fill="none" stroke="{colour}" '
        'stroke-width="1.8"/>'
        for _, colour, points in curves
    ]
    saves = [step for step in range(1, plan.total_steps) if plan.save_due(step)]
    samples = [step for step in range(plan.total_steps + 1) if plan.sample_due(step)]
    parts += _marks(saves, last, "save")
    parts += _marks([step for step in samples if step < plan.total_steps], last, "sample")
    parts.append(_text(LEFT, HEIGHT - 8, "0"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 8, f"step {plan.total_steps}", anchor="end"))
    legend = " ".join(f"{swatch(colour)}{name}" for name, colour, _ in curves)
    return _figure(
        f"Learning rate: {legend}",
        parts,
        f"Learning rate, at most {highest:g}",
        _key(len(saves) + 1, len(samples)),
    )


def _rates(basic: Basic, params: ScheduleParams) -> list[tuple[str, str, Callable[[int], float]]]:
    """Name, colour and course of each part that learns, as far as the schedule decides it."""
    if basic.lr_scheduler_type or effective.controls_lr(basic):
        return []  # a foreign class or the optimizer decides, while it runs
    formula: Formula = catalog.load(catalog.SCHEDULES[basic.lr_scheduler].code)
    rates = effective.learning_rates(basic)
    parts = zip(("U-Net", "text encoder"), (ACCENT, TEXT_COLOUR), rates, strict=True)
    return [(name, colour, _course(params, formula, rate)) for name, colour, rate in parts if rate]


def _course(params: ScheduleParams, formula: Formula, rate: float) -> Callable[[int], float]:
    shape = replace(params, rate=rate)
    return lambda step: rate * factor_at(formula, step, shape)


def _spread(total: int) -> Sequence[int]:
    """Steps from the first to the last, at most POINTS of them."""
    if total <= POINTS:
        return range(total)
    return [round(i * (total - 1) / (POINTS - 1)) for i in range(POINTS)]


def _marks(steps: list[int], last: int, what: str) -> Iterable[str]:
    if len(steps) > MOST_MARKS:
        return
    top, length = (TOP, 7) if what == "sample" else (HEIGHT - BOTTOM - 8, 8)
    for step in steps:
        x = LEFT + step / last * (WIDTH - LEFT - RIGHT)
        yield (
            f'<path d="M{x:.1f} {top}v{length}" stroke="currentColor" stroke-opacity=".6">'
            f"<title>{what} at step {step}</title></path>"
        )


def _key(saves: int, samples: int) -> str:
    often = "once (tick above)" if samples == 1 else f"{samples} times (ticks above)"
    drawn = f", samples drawn {often}" if samples else ""
    files = f"{saves} LoRA files (ticks below)" if saves > 1 else "1 LoRA file, at the end"
    return f"{files}{drawn}"


# ------------------------------------------------------------------------ buckets, network


def bucket_picture(buckets: Mapping[Size, int]) -> str:
    """Images with their repeats in every bucket, the fullest first."""
    found = sorted(buckets.items(), key=lambda item: -item[1])
    shown, most = found[:MOST_BUCKETS], max(buckets.values(), default=1)
    row = (HEIGHT - TOP) / max(len(shown), 6)
    parts = []
    for i, ((width, height), count) in enumerate(shown):
        y = TOP + i * row
        length = count / most * (WIDTH - LEFT - RIGHT - 70)
        parts.append(
            f'<rect x="{LEFT + 28}" y="{y:.1f}" width="{length:.1f}" height="{row * 0.7:.1f}" '
            f'fill="{ACCENT}" fill-opacity=".75"/>'
        )
        parts.append(_text(LEFT + 22, y + row * 0.6, f"{width}x{height}", anchor="end"))
        parts.append(_text(LEFT + 34 + length, y + row * 0.6, str(count)))
    more = f"and {len(found) - len(shown)} smaller buckets" if len(found) > len(shown) else ""
    ends = TOP + len(shown) * row
    return _figure("Images in buckets", parts, f"{len(found)} buckets", more, height=ends)


def network_facts(settings: Settings, family: str) -> str:
    """Layers, weights, file size, strength, and who reads the file."""
    network = settings.network
    label = catalog.FAMILIES[family].label if family else ""
    size = network_size(settings, family) if family else None
    rows = [("type", network.LoRA_type)]
    if size is not None:
        rows += [
            ("layers", f"{size.layers}"),
            ("weights", f"{size.weights:,}"),
            ("file", f"about {size.bytes / 1e6:.3g} MB, {settings.saving.save_precision}"),
            *([("of it for other programs", f"{size.more / 1e6:.3g} MB")] if size.more else []),
            ("of a full-size", label),
        ]
    elif network.dim_from_weights:
        rows.append(("size", "that of LoRA network weights"))
    else:
        when = "the run begins, for single layers decide it" if family else "the base is chosen"
        rows.append(("size", f"told when {when}"))
    if not network.dim_from_weights:
        alpha = network.network_alpha or network.network_dim
        strength = f"{alpha:g} / {network.network_dim} = {alpha / network.network_dim:g}"
        rows.append(("strength (alpha / rank)", strength))
    cells = "".join(f"<span>{escaped(name)}</span><b>{escaped(v)}</b>" for name, v in rows)
    read_by = escaped(catalog.read_by(settings.flat()).sentence)
    return (
        f"<div class='kit-caption'>Network</div><div class='kit-facts'>{cells}</div>"
        f"<div class='kit-quiet'>{read_by}.</div>"
    )


# ------------------------------------------------------------------------------ drawing


def _level(value: float, highest: float) -> str:
    y = TOP + (1 - value / highest) * (HEIGHT - TOP - BOTTOM)
    line = f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" stroke-opacity=".15"/>'
    return line + _text(LEFT - 6, y + 4, f"{value:.3g}", anchor="end")


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _figure(
    title: str, parts: Iterable[str], label: str, below: str, *, height: float = HEIGHT
) -> str:
    return (
        f"<div class='kit-caption'>{title}</div>"
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{label}"><g font-family="sans-serif" font-size="10" fill="currentColor">'
        f"{''.join(parts)}</g></svg><div class='kit-quiet'>{below}</div>"
    )
