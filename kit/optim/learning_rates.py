"""Learning rates: schedules made from the catalog's rows, and the rates that groups have now."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from kit import catalog
from kit.catalog.lr_schedules import Formula, ScheduleParams, factor_at
from kit.errors import SettingsError
from kit.optim.optimization import BREAKS, Optimization
from kit.settings.optimizer_args import parse_optimizer_args


class NoSchedule:
    """The optimizer chooses its own rate: nothing to do."""

    def step(self) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


def make_lr_scheduler(
    optimizer: Optimizer, lr_scheduler: str, schedule_params: ScheduleParams
) -> LambdaLR:
    """The named schedule over every group's own rate."""
    formula: Formula = catalog.load(catalog.SCHEDULES[lr_scheduler].code)

    def factor_for(rate: float) -> Callable[[int], float]:
        own = replace(schedule_params, rate=rate)
        return lambda step: factor_at(formula, step, own)

    return LambdaLR(optimizer, [factor_for(group["lr"]) for group in optimizer.param_groups])


def make_foreign_scheduler(optimizer: Optimizer, name: str, arguments: str) -> LRScheduler:
    """A schedule of torch.optim.lr_scheduler, or `package.module.Class`, with its own arguments.

    Raises: SettingsError where there is no such class, it needs the loss, or the arguments are not
    its own; MissingPackage.
    """
    module, _, kind_name = name.strip().rpartition(".")
    try:
        kind = catalog.load(f"{module or 'torch.optim.lr_scheduler'}:{kind_name}")
    except AttributeError:
        raise SettingsError([f"[basic] lr_scheduler_type: there is no class {name}"]) from None
    if not (isinstance(kind, type) and issubclass(kind, LRScheduler)) or kind is ReduceLROnPlateau:
        raise SettingsError(
            [f"[basic] lr_scheduler_type: {name} is no schedule that goes by steps alone"]
        )
    given = parse_optimizer_args(arguments)
    try:
        return kind(optimizer, **given)
    except BREAKS as error:
        shown = " ".join(f"{key}={value}" for key, value in given.items())
        raise SettingsError(
            [f"[basic] lr_scheduler_args: {name} does not take {shown!r}: {error}"]
        ) from error


def rates_of(optimization: Optimization) -> dict[str, float]:
    """The rate of every group, by its name, that the next step is given."""
    groups = optimization.optimizer.param_groups
    return {group["name"]: _rate_of(optimization, group) * factor_of(group) for group in groups}


def factor_of(group: dict[str, Any]) -> float:
    """What a person has multiplied the group's rate with, while it trained."""
    return float(group.get("factor", 1.0))


def changed_rates(optimization: Optimization) -> dict[str, float]:
    """What the schedule's rates are multiplied by, by group, where that was ever requested."""
    groups = optimization.optimizer.param_groups
    return {group["name"]: group["factor"] for group in groups if "factor" in group}


def multiply_rates(optimization: Optimization, by: float) -> None:
    """Multiply the rates of all groups, as a person may while it trains."""
    for group in optimization.optimizer.param_groups:
        group["factor"] = factor_of(group) * by


@contextmanager
def at_requested_rates(optimizer: Optimizer) -> Iterator[None]:
    """Inside the block the groups have the rates that were requested; schedules never see them.

    The factor lies in the group, so it is kept and restored with the optimizer's state.
    """
    scheduled = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        if factor_of(group) != 1.0:
            group["lr"] = group["lr"] * factor_of(group)
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, scheduled, strict=True):
            group["lr"] = rate


def effective_rates_of(optimization: Optimization) -> dict[str, float]:
    """The rate of every group times the step size d that its optimizer estimates, where it does."""
    rates = rates_of(optimization)
    return {
        group["name"]: rates[group["name"]] * _step_size(group)
        for group in optimization.optimizer.param_groups
    }


def _step_size(group: dict[str, Any]) -> float:
    """The d that a group is moved by; ProdigyPlus can take the mean of all groups for each."""
    shares = group.get("split_groups") and group.get("split_groups_mean")
    shared = group.get("shared_d") if shares else None
    return float(group.get("d", 1.0) if shared is None else shared)


def _rate_of(optimization: Optimization, group: dict[str, Any]) -> float:
    if not any(weight.requires_grad for weight in group["params"]):
        return 0.0  # it has stopped learning
    if not optimization.own_rate:
        return float(group["lr"])
    # Adafactor keeps no rate; the step size of its first weight stands for the group.
    weight = group["params"][0]
    step = optimization.optimizer.state.get(weight, {}).get("step", 0) + 1
    size = min(1e-6 * step if group["warmup_init"] else 1e-2, 1 / math.sqrt(step))
    rms = float(weight.detach().norm()) / math.sqrt(weight.numel())
    return size * (max(group["eps"][1], rms) if group["scale_parameter"] else 1.0)


def refuse_unequal_rates(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """A schedule may give each group a rate of its own, which not every optimizer follows.

    Prodigy refuses two rates with an error of its own, but goes on moving a group at a rate of 0.
    """
    rates = sorted({float(group["lr"]) for group in optimizer.param_groups})
    if len(rates) > 1:
        raise SettingsError(
            [
                f"[basic] lr_scheduler_args: {type(optimizer).__name__} learns every part at one "
                f"rate, but the schedule gives {' and '.join(f'{rate:g}' for rate in rates)}; give "
                "it one number for all parts, or choose another optimizer"
            ]
        )
