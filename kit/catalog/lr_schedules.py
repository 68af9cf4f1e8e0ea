"""Learning-rate schedules: a factor of the group's own rate at each step.

Pure numbers, without torch, so that the form can draw what the run will do. The formulas are those
of transformers' and diffusers' get_scheduler, which the reference trainer calls, and of the papers
named below. A linear warm-up comes first, whatever the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

LEAST_RATE = 1e-7  # where the reference's polynomial ends
Formula = Callable[[int, "ScheduleParams"], float]


@dataclass(frozen=True)
class ScheduleParams:
    """What a schedule may depend on. Steps are optimizer steps."""

    total: int
    warmup: int = 0
    cycles: int = 1
    power: float = 1.0
    rate: float = 1.0  # the group's own rate
    least: float = 0.0  # the share of the rate that some schedules end at
    start: float = 0.0  # the share of the rate that the warm-up starts from
    timescale: int = 0  # of inverse_sqrt; 0 means the warm-up, or 10,000
    decay: int = 0  # the last steps, in which warmup_stable_decay falls
    rules: tuple[tuple[float, int | None], ...] = ()  # factor until step; the last one has no end

    def progress(self, step: int) -> float:
        """From 0 at the end of the warm-up to 1 at the end of the run."""
        return (step - self.warmup) / max(1, self.total - self.warmup)


def factor_at(formula: Formula, step: int, params: ScheduleParams) -> float:
    """The factor that this step learns at, warm-up included."""
    if step >= params.warmup:
        return formula(step, params)
    return params.start + (1 - params.start) * climbed(step, params)


def climbed(step: int, params: ScheduleParams) -> float:
    """The share of the warm-up that is done."""
    return step / max(1, params.warmup) if step < params.warmup else 1.0


def constant(_step: int, _params: ScheduleParams) -> float:
    """Always the full rate."""
    return 1.0


def linear(step: int, params: ScheduleParams) -> float:
    """A straight line down to 0."""
    return max(0.0, (params.total - step) / max(1, params.total - params.warmup))


def cosine(step: int, params: ScheduleParams) -> float:
    """Half a cosine down to 0 (Loshchilov and Hutter 2017, eq. 5, one cycle)."""
    return max(0.0, 0.5 * (1 + math.cos(math.pi * params.progress(step))))


def cosine_with_restarts(step: int, params: ScheduleParams) -> float:
    """Half a cosine, `cycles` times (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983)."""
    progress = params.progress(step)
    if progress >= 1:
        return 0.0
    return max(0.0, 0.5 * (1 + math.cos(math.pi * ((params.cycles * progress) % 1.0))))


def cosine_with_min_lr(step: int, params: ScheduleParams) -> float:
    """`cycles` half cosines, down and up again, to the least share instead of 0."""
    wave = 0.5 * (1 + math.cos(math.pi * params.cycles * params.progress(step)))
    return max(0.0, wave * (1 - params.least) + params.least)


def polynomial(step: int, params: ScheduleParams) -> float:
    """(1 - progress) to the power, down to a rate of 1e-7, `cycles` times.

    The reference ends every group at the main rate's 1e-7 (its defect 21); here each ends at its
    own. It knows no restarts, which the guide promises; one cycle is its own curve.
    """
    end = min(LEAST_RATE, params.rate)
    if step > params.total:
        return end / params.rate
    progress = params.progress(step)
    if progress < 1:
        progress = params.cycles * progress % 1.0
    remaining = 1 - progress
    return float(((params.rate - end) * remaining**params.power + end) / params.rate)


def inverse_sqrt(step: int, params: ScheduleParams) -> float:
    """1 / sqrt of the steps, in units of the timescale (Vaswani et al. 2017, eq. 3)."""
    timescale = params.timescale or params.warmup or 10_000
    return math.sqrt(timescale / (step - params.warmup + timescale))


def warmup_stable_decay(step: int, params: ScheduleParams) -> float:
    """The full rate until the last `decay` steps, then half a cosine to the least share.

    Source: https://arxiv.org/abs/2404.06395, section 4.
    """
    if step < params.total - params.decay:
        return 1.0
    if step >= params.total:
        return params.least
    progress = (step - (params.total - params.decay)) / max(1, params.decay)
    wave = 0.5 * (1 + math.cos(math.pi * params.cycles * progress))
    return max(0.0, wave * (1 - params.least) + params.least)


def rex(step: int, params: ScheduleParams) -> float:
    """Falls slowly at first and fast at the end, to the least share.

    Source: REX, Chen et al. 2021, https://arxiv.org/abs/2107.04197, eq. 1.
    """
    remaining = 1 - min(1.0, params.progress(step))
    return params.least + (1 - params.least) * remaining / (0.5 + 0.5 * remaining)


def piecewise_constant(step: int, params: ScheduleParams) -> float:
    """Fixed factors, each until its step."""
    return next(factor for factor, end in params.rules if end is None or step < end)


def parse_step_rules(text: str) -> tuple[tuple[float, int | None], ...]:
    """`1:10,0.1:20,0.01` is the full rate until step 10, a tenth until 20, a hundredth after.

    Raises: ValueError where it is not of that form, or the steps do not rise.
    """
    rules: list[tuple[float, int | None]] = []
    *parts, last = (part.strip() for part in text.split(","))
    for part in parts:
        factor, colon, end = part.partition(":")
        if not colon or not end.strip().isdigit():
            raise ValueError(f"{part!r} is no factor:step; write e.g. 1:10,0.1:20,0.01")
        rules.append((_factor(factor), int(end)))
    ends = [end for _, end in rules if end is not None]
    if ":" in last or ends != sorted(set(ends)):
        raise ValueError(f"{text!r}: the steps must rise, and the last factor stands without one")
    return (*rules, (_factor(last), None))


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = -1.0
    if not 0 <= factor < math.inf:
        raise ValueError(f"{text!r} is no factor from 0; write e.g. 1:10,0.1:20,0.01")
    return factor


# ------------------------------------------------------------------------------------- the menu


@dataclass(frozen=True)
class LrSchedule:
    """A learning-rate schedule and the settings that it reads."""

    code: str
    warms_up: bool = True
    own: bool = False  # the optimizer's own, for those that choose their rate
    uses: tuple[str, ...] = ()
    least: float = 0.0  # the share it ends at where lr_scheduler_min_lr_ratio is blank
    warms_up_from_least: bool = False  # the warm-up starts at that share, not at 0


SCHEDULES: dict[str, LrSchedule] = {
    "constant": LrSchedule("kit.catalog.lr_schedules:constant", warms_up=False),
    "constant_with_warmup": LrSchedule("kit.catalog.lr_schedules:constant"),
    "linear": LrSchedule("kit.catalog.lr_schedules:linear"),
    "cosine": LrSchedule("kit.catalog.lr_schedules:cosine"),
    "cosine_with_restarts": LrSchedule(
        "kit.catalog.lr_schedules:cosine_with_restarts", uses=("lr_scheduler_num_cycles",)
    ),
    "polynomial": LrSchedule(
        "kit.catalog.lr_schedules:polynomial",
        uses=("lr_scheduler_power", "lr_scheduler_num_cycles"),
    ),
    "cosine_with_min_lr": LrSchedule(
        "kit.catalog.lr_schedules:cosine_with_min_lr",
        uses=("lr_scheduler_min_lr_ratio", "lr_scheduler_num_cycles"),
        least=0.1,
    ),
    "inverse_sqrt": LrSchedule(
        "kit.catalog.lr_schedules:inverse_sqrt", uses=("lr_scheduler_timescale",)
    ),
    "warmup_stable_decay": LrSchedule(
        "kit.catalog.lr_schedules:warmup_stable_decay",
        uses=("lr_decay_steps", "lr_scheduler_min_lr_ratio", "lr_scheduler_num_cycles"),
        warms_up_from_least=True,
    ),
    "rex": LrSchedule("kit.catalog.lr_schedules:rex", uses=("lr_scheduler_min_lr_ratio",)),
    "piecewise_constant": LrSchedule(
        "kit.catalog.lr_schedules:piecewise_constant", warms_up=False, uses=("lr_scheduler_args",)
    ),
    "adafactor": LrSchedule("kit.catalog.lr_schedules:constant", warms_up=False, own=True),
}
