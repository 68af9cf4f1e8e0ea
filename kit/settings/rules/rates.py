"""Rules about the learning-rate schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kit import catalog
from kit.catalog import lr_schedules
from kit.settings.optimizer_args import parse_optimizer_args
from kit.settings.rules import optimizer as rules_optimizer
from kit.settings.rules import schedule as rules_schedule

if TYPE_CHECKING:
    from kit.settings import Settings

OPTIONAL = (
    "lr_scheduler_num_cycles",
    "lr_scheduler_power",
    "lr_scheduler_min_lr_ratio",
    "lr_scheduler_timescale",
    "lr_decay_steps",
)


def rates(settings: Settings) -> tuple[float, float]:
    """The effective (U-Net, text encoder) rates: blank is Learning rate, 0 is frozen."""
    basic = settings.basic
    unet = basic.learning_rate if basic.unet_lr is None else basic.unet_lr
    text = basic.learning_rate if basic.text_encoder_lr is None else basic.text_encoder_lr
    return unet, text


def part_rates(settings: Settings) -> dict[str, float]:
    """The effective rate of every part that a layer may belong to."""
    unet, text = rates(settings)
    second = settings.rates.learning_rate_te2
    return {"unet": unet, "te": text, "te1": text, "te2": text if second is None else second}


def encoder_learns(settings: Settings) -> bool:
    """Some text encoder has a rate."""
    return any(rate > 0 for part, rate in part_rates(settings).items() if part != "unet")


def warms_up(settings: Settings) -> bool:
    """The schedule begins with a warm-up; constant ones, foreign classes and optimizers do not."""
    basic = settings.basic
    if settings.rates.lr_warmup_only_constant and basic.lr_scheduler != "constant_with_warmup":
        return False
    foreign = basic.lr_scheduler_type or rules_optimizer.controls_lr(settings)
    return catalog.SCHEDULES[basic.lr_scheduler].warms_up and not foreign


def least_share(settings: Settings) -> float:
    """The share of the rate that the schedule ends at, where it ends at one."""
    given = settings.basic.lr_scheduler_min_lr_ratio
    return catalog.SCHEDULES[settings.basic.lr_scheduler].least if given is None else given


def start_share(settings: Settings) -> float:
    """The share of the rate that the warm-up starts from."""
    from_least = catalog.SCHEDULES[settings.basic.lr_scheduler].warms_up_from_least
    return least_share(settings) if from_least else 0.0


def run_problems(settings: Settings, total: int) -> list[str]:
    """What the run's steps rule out."""
    return list(rules_schedule.length_problems(settings, total))


def run_notices(settings: Settings, total: int, decay: int) -> Iterator[str]:
    """What has another effect than it seems, once the run's steps and those of decay are known."""
    basic = settings.basic
    own = rules_schedule.own_rates(settings)
    both_own = basic.unet_lr is not None and basic.text_encoder_lr is not None
    if both_own and "learning_rate" in settings.changed() and not own:
        yield (
            "learning_rate has no effect: unet_lr and text_encoder_lr are both set; blank them "
            "to use it"
        )
    yield from _too_long(settings, total, decay)
    yield from rules_schedule.length_notices(settings, total)


def _too_long(settings: Settings, total: int, decay: int) -> Iterator[str]:
    """Steps of the schedule that the run does not have."""
    basic = settings.basic
    warmup = (basic.lr_warmup_steps or 0) if warms_up(settings) else 0
    if warmup > total:
        yield (
            f"lr_warmup_steps = {warmup} is more than the run's {total} steps: the rate climbs to "
            "the end and just reaches its full height (sd-scripts would stop below it)"
        )
        return
    decays = basic.lr_scheduler == "warmup_stable_decay" and not basic.lr_scheduler_type
    if decays and not rules_optimizer.controls_lr(settings) and warmup + decay > total:
        yield (
            f"lr_decay_steps: {decay} steps of decay"
            + (f" and {warmup} of warm-up" if warmup else "")
            + f" are more than the run's {total}: the rate starts to fall below its full height"
        )


def step_rules(settings: Settings) -> tuple[tuple[float, int | None], ...]:
    """The factors of piecewise_constant; none for other schedules.

    Raises: ValueError where they are missing or cannot be read.
    """
    basic = settings.basic
    if basic.lr_scheduler != "piecewise_constant" or basic.lr_scheduler_type:
        return ()
    given = parse_optimizer_args(basic.lr_scheduler_args)
    if set(given) != {"step_rules"}:
        raise ValueError("piecewise_constant reads step_rules; write e.g. step_rules=1:10,0.1")
    return lr_schedules.parse_step_rules(str(given["step_rules"]))


def _arguments(settings: Settings) -> Iterator[str]:
    try:
        parse_optimizer_args(settings.basic.lr_scheduler_args)
        step_rules(settings)
    except ValueError as error:
        yield f"[basic] lr_scheduler_args: {error}"


def _no_warmup(settings: Settings) -> Iterator[str]:
    basic = settings.basic
    if rules_optimizer.controls_lr(settings):
        return  # told there
    if not warms_up(settings) and (basic.lr_warmup_steps or basic.lr_warmup):
        name = basic.lr_scheduler_type or basic.lr_scheduler
        if settings.rates.lr_warmup_only_constant:
            yield f"lr_warmup has no effect: lr_warmup_only_constant is on, and it is {name}"
            return
        yield (
            f"lr_warmup has no effect: lr_scheduler = {name} does not warm up "
            "(constant_with_warmup does)"
        )


def _unused(settings: Settings) -> Iterator[str]:
    basic = settings.basic
    foreign = basic.lr_scheduler_type
    used = () if foreign else catalog.SCHEDULES[basic.lr_scheduler].uses
    for name in OPTIONAL:
        if getattr(basic, name) is not None and name not in used:
            yield f"{name} has no effect: {foreign or basic.lr_scheduler} does not use it"
    if basic.lr_scheduler_args and not foreign and "lr_scheduler_args" not in used:
        yield f"lr_scheduler_args has no effect: {basic.lr_scheduler} does not use it"
    if foreign:
        yield f"lr_scheduler has no effect: lr_scheduler_type = {foreign} takes its place"


def _ends_high(settings: Settings) -> Iterator[str]:
    basic, cycles = settings.basic, settings.basic.lr_scheduler_num_cycles or 1
    waves = basic.lr_scheduler in ("cosine_with_min_lr", "warmup_stable_decay")
    if waves and cycles % 2 == 0 and not basic.lr_scheduler_type:
        yield (
            f"lr_scheduler_num_cycles = {cycles}: {basic.lr_scheduler} makes that many half waves "
            "and ends at the full rate; an odd number ends low"
        )


PROBLEMS = (_arguments,)
NOTICES = (_no_warmup, _unused, _ends_high)
