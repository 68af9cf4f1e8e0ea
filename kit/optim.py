"""Optimizers and learning-rate schedules, made from the catalog's rows.

A schedule is a factor of the group's own rate, as a function of the finished steps. Formulas are
those of transformers' and diffusers' get_scheduler, which the reference trainer calls; each begins
with a linear warm-up whose first step has rate 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kit import catalog
from kit.adapters.network import Group
from kit.errors import KitError, SettingsError
from kit.settings.optimizer_args import parse_optimizer_args

LEAST_RATE = 1e-7  # where the reference's polynomial ends


@dataclass(frozen=True)
class Shape:
    """What a schedule may depend on. Steps are optimizer steps."""

    total: int
    warmup: int = 0
    cycles: int = 1
    power: float = 1.0
    rate: float = 1.0  # the group's own rate

    def progress(self, step: int) -> float:
        """From 0 at the end of the warm-up to 1 at the end of the run."""
        return (step - self.warmup) / max(1, self.total - self.warmup)


def constant(_step: int, _shape: Shape) -> float:
    """Always the full rate."""
    return 1.0


def linear(step: int, shape: Shape) -> float:
    """A straight line down to 0."""
    return max(0.0, (shape.total - step) / max(1, shape.total - shape.warmup))


def cosine(step: int, shape: Shape) -> float:
    """Half a cosine down to 0 (Loshchilov and Hutter 2017, eq. 5, one cycle)."""
    return max(0.0, 0.5 * (1 + math.cos(math.pi * shape.progress(step))))


def cosine_with_restarts(step: int, shape: Shape) -> float:
    """Half a cosine, `cycles` times (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983)."""
    progress = shape.progress(step)
    if progress >= 1:
        return 0.0
    return max(0.0, 0.5 * (1 + math.cos(math.pi * ((shape.cycles * progress) % 1.0))))


def polynomial(step: int, shape: Shape) -> float:
    """(1 - progress) to the power, down to a rate of 1e-7.

    The reference ends every group at the main rate's 1e-7 (its defect 21); here each ends at its
    own.
    """
    end = min(LEAST_RATE, shape.rate)
    if step > shape.total:
        return end / shape.rate
    remaining = 1 - shape.progress(step)
    return float(((shape.rate - end) * remaining**shape.power + end) / shape.rate)


class Schedule(Protocol):
    """What the loop needs of a schedule."""

    def step(self) -> None:
        """Go on by one optimizer step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


class OwnSchedule:
    """The optimizer chooses its own rate: nothing to do."""

    def step(self) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


@dataclass
class Learning:
    """Optimizer and schedule, and how they came about."""

    optimizer: Optimizer
    schedule: Schedule
    described: str  # as ss_optimizer: module.Class(name=value,...)
    own_rate: bool
    notices: tuple[str, ...] = ()


def make_learning(
    groups: Sequence[Group],
    *,
    optimizer_type: str,
    optimizer_args: str,
    lr_scheduler: str,
    shape: Shape,
    device: torch.device,
) -> Learning:
    """Build the optimizer and its schedule; falls back, with a notice, where the row allows it.

    Raises: SettingsError for arguments the optimizer does not know; MissingPackage.
    """
    given = parse_optimizer_args(optimizer_args)
    row, notices = catalog.OPTIMIZERS[optimizer_type], []
    if row.fallback and (reason := _cannot_run(row, device)):
        notices.append(
            f"{optimizer_type} cannot run here ({reason}); {row.fallback} is used instead"
        )
        optimizer_type, row = row.fallback, catalog.OPTIMIZERS[row.fallback]
    arguments = {**row.defaults, **given}
    own_rate = row.own_rate and bool(arguments.get("relative_step"))
    optimizer = _built(row, optimizer_type, groups, arguments, own_rate=own_rate)
    schedule = OwnSchedule() if own_rate else make_schedule(optimizer, lr_scheduler, shape)
    return Learning(optimizer, schedule, _described(optimizer, arguments), own_rate, tuple(notices))


def make_schedule(optimizer: Optimizer, lr_scheduler: str, shape: Shape) -> LambdaLR:
    """The named schedule over every group's own rate."""
    formula: Callable[[int, Shape], float] = catalog.load(catalog.SCHEDULES[lr_scheduler].code)

    def factor_for(rate: float) -> Callable[[int], float]:
        own = Shape(shape.total, shape.warmup, shape.cycles, shape.power, rate)

        def factor(step: int) -> float:
            return step / max(1, own.warmup) if step < own.warmup else formula(step, own)

        return factor

    return LambdaLR(optimizer, [factor_for(group["lr"]) for group in optimizer.param_groups])


def rates_of(learning: Learning) -> dict[str, float]:
    """The rate of every group, by its name, that the next step uses."""
    return {group["name"]: _rate_of(learning, group) for group in learning.optimizer.param_groups}


def _rate_of(learning: Learning, group: dict[str, Any]) -> float:
    if not learning.own_rate:
        return float(group["lr"])
    # Adafactor keeps no rate; the step size of its first weight stands for the group.
    weight = group["params"][0]
    step = learning.optimizer.state.get(weight, {}).get("step", 0) + 1
    size = min(1e-6 * step if group["warmup_init"] else 1e-2, 1 / math.sqrt(step))
    rms = float(weight.detach().norm()) / math.sqrt(weight.numel())
    return size * (max(group["eps"][1], rms) if group["scale_parameter"] else 1.0)


def _built(
    row: catalog.Optimizer,
    name: str,
    groups: Sequence[Group],
    arguments: dict[str, Any],
    *,
    own_rate: bool,
) -> Optimizer:
    kind = catalog.load(row.code, row.needs)
    parameters = [
        {"params": list(group.weights), "lr": None if own_rate else group.rate, "name": group.name}
        for group in groups
    ]
    rate = None if own_rate else groups[0].rate
    try:
        optimizer: Optimizer = kind(parameters, lr=rate, **arguments)
    except (TypeError, ValueError) as error:
        shown = " ".join(f"{key}={value}" for key, value in arguments.items())
        raise SettingsError(
            [f"[basic] optimizer_args: {name} does not take {shown!r}: {error}"]
        ) from error
    return optimizer


def _cannot_run(row: catalog.Optimizer, device: torch.device) -> str:
    """Why one step of this optimizer fails on the device; empty where it works."""
    try:
        # 8-bit states are used from 4096 values on; a smaller probe would not touch that code.
        probe = torch.nn.Parameter(torch.zeros(4096, device=device))
        probe.grad = torch.ones_like(probe)
        catalog.load(row.code, row.needs)([probe], lr=1e-3).step()
    except (
        KitError,
        RuntimeError,
        NotImplementedError,
        OSError,
        AttributeError,
        ValueError,
    ) as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return "" if bool((probe != 0).all()) else "its step changes nothing"


def _described(optimizer: Optimizer, arguments: dict[str, Any]) -> str:
    kind = type(optimizer)
    shown = ",".join(f"{key}={value}" for key, value in arguments.items())
    return f"{kind.__module__}.{kind.__name__}" + (f"({shown})" if shown else "")
