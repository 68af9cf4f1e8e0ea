"""Rules about the optimizer: its arguments, its rates, and what it takes over itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kit import catalog
from kit.errors import nearest
from kit.settings.optimizer_args import parse_optimizer_args
from kit.settings.rules.blocks import given_weights
from kit.settings.rules.schedule import own_rates

if TYPE_CHECKING:
    from kit.settings import Settings

FAR = 10  # a rate so many times above or below the advised one is told


def row_of(settings: Settings) -> catalog.Optimizer:
    """The optimizer's row of the menu."""
    return catalog.OPTIMIZERS[settings.basic.optimizer_type]


def understood(settings: Settings) -> dict[str, Any]:
    """The optimizer's extra arguments, read; none where they cannot be."""
    try:
        return parse_optimizer_args(settings.basic.optimizer_args)
    except ValueError:
        return {}


def controls_lr(settings: Settings) -> str:
    """What the optimizer takes over: its "rate", the "schedule", or nothing."""
    row = row_of(settings)
    return row.controls_lr_with({**row.defaults, **understood(settings)})


def described(settings: Settings) -> str:
    """The optimizer with its arguments as they were understood, its rates and the advised one."""
    row, basic = row_of(settings), settings.basic
    given = ", ".join(f"{name} = {value}" for name, value in understood(settings).items())
    text = f"optimizer {basic.optimizer_type}" + (f" with {given}" if given else "")
    if controls_lr(settings) == "rate":
        return f"{text}, which chooses its own rate"
    advised = f" (advised: {row.advised_lr:g})" if row.advised_lr else ""
    if own := own_rates(settings):
        return f"{text}, rates: {own}{advised}"
    unet, words = _rates(settings)
    return f"{text}, rates: U-Net {unet:g}, text encoder {words:g}{advised}"


def _rates(settings: Settings) -> tuple[float, float]:
    from kit.settings.rules.rates import rates  # which asks controls_lr() of this file

    return rates(settings)


def _optimizer_args(settings: Settings) -> Iterator[str]:
    basic, row = settings.basic, row_of(settings)
    try:
        given = parse_optimizer_args(basic.optimizer_args)
    except ValueError as error:
        yield f"[basic] optimizer_args: {error}"
        return
    takes = parse_optimizer_args(row.takes)
    known = {*takes, *row.renamed}
    for name in given:
        if name == "lr":
            yield "[basic] optimizer_args: lr is not given here; set unet_lr and text_encoder_lr"
        elif name not in known:
            yield (
                f"[basic] optimizer_args: {basic.optimizer_type} does not take {name}"
                f"{nearest(name, known)}; it takes {', '.join(takes)}"
            )


def _one_rate(settings: Settings) -> Iterator[str]:
    from kit.settings.rules.parts import plus_ratios
    from kit.settings.rules.rates import part_rates

    row, name = row_of(settings), settings.basic.optimizer_type
    if not row.one_rate:
        return
    own = own_rates(settings)
    if own and any(len(set(rates)) > 1 for rates in (own.first, own.highest)):
        yield (
            f"[basic] lr_scheduler_args: {name} learns every part at one rate; give {own.name} one "
            "number instead of a list"
        )
    different = sorted({rate for rate in part_rates(settings).values() if rate})
    if len(different) > 1 and not own:
        yield (
            f"[basic] text_encoder_lr: {name} learns every part at one rate, but there are "
            f"{' and '.join(f'{rate:g}' for rate in different)}; set unet_lr and text_encoder_lr "
            f"to {row.advised_lr or different[-1]:g}, or one of them to 0"
        )
    if any(plus_ratios(settings).values()):
        yield (
            f"[rates] loraplus_lr_ratio: {name} learns every weight at one rate; set the ratios "
            "to 0, or choose another optimizer"
        )
    if any(given_weights(settings.blocks).values()):
        yield (
            f"[blocks] down_lr_weight: {name} learns every block at one rate; blank the weights of "
            "blocks, or choose another optimizer"
        )


def _own_schedule_alone(settings: Settings) -> Iterator[str]:
    basic = settings.basic
    own = catalog.SCHEDULES[basic.lr_scheduler].own and not basic.lr_scheduler_type
    if own and controls_lr(settings) != "rate":
        yield (
            f"[basic] lr_scheduler: {basic.lr_scheduler} is the schedule of an optimizer that "
            "chooses its own rate, such as Adafactor with relative_step=True; choose another, "
            "e.g. constant_with_warmup"
        )


def _takes_over(settings: Settings) -> Iterator[str]:
    basic, row = settings.basic, row_of(settings)
    what, off = controls_lr(settings), f"; with {row.while_on}=False in optimizer_args they have"
    if what == "rate":
        yield (
            f"{basic.optimizer_type} chooses its own rate: learning_rate, unet_lr, text_encoder_lr "
            f"(except 0), lr_scheduler and lr_warmup have no effect{off}"
        )
    elif what:
        warms_up = "warmup_steps" in parse_optimizer_args(row.takes)
        yield (
            f"{basic.optimizer_type} averages its weights instead of lowering the rate: "
            "lr_scheduler and lr_warmup have no effect"
            + (off if row.while_on else "")
            + ("; it warms up with warmup_steps=100 in optimizer_args" if warms_up else "")
        )
        if settings.network.scale_weight_norms:
            yield (
                f"scale_weight_norms limits the weights that {basic.optimizer_type} learns from; "
                "their average, which is saved, may be somewhat longer"
            )


def _far_from_advised(settings: Settings) -> Iterator[str]:
    own = own_rates(settings)
    row, rate = row_of(settings), max(own.highest if own else _rates(settings))
    if not row.advised_lr or controls_lr(settings) == "rate" or not rate:
        return
    if not 1 / FAR <= rate / row.advised_lr <= FAR * 1.001:
        why = " as a factor of the step size that it finds itself" if row.adapts else ""
        yield (
            f"the rate {rate:g} is far from {row.advised_lr:g}, which is advised for "
            f"{settings.basic.optimizer_type}{why}"
        )


def _optimizer_note(settings: Settings) -> Iterator[str]:
    if row_of(settings).note:
        yield row_of(settings).note


PROBLEMS = (_optimizer_args, _one_rate, _own_schedule_alone)
NOTICES = (_takes_over, _far_from_advised, _optimizer_note)
