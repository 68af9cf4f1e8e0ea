"""Optimizers and learning-rate schedules, made from the catalog's rows."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any, Protocol

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from kit import catalog
from kit.adapters.param_groups import Group
from kit.catalog.lr_schedules import Formula, ScheduleParams, factor_at
from kit.errors import KitError, SettingsError
from kit.settings.optimizer_args import parse_optimizer_args


class LrScheduler(Protocol):
    """What the loop needs of a learning-rate scheduler."""

    def step(self) -> None:
        """Go on by one optimizer step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


class NoSchedule:
    """The optimizer chooses its own rate: nothing to do."""

    def step(self) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


@dataclass
class Optimization:
    """An optimizer and its scheduler, and how they came about."""

    optimizer: Optimizer
    scheduler: LrScheduler
    described: str  # as ss_optimizer: module.Class(name=value,...)
    own_rate: bool
    one_rate: bool = False  # all groups must learn at the same rate
    name: str = ""  # in the menu; that of the fallback where one took over
    notices: tuple[str, ...] = ()


def build_optimization(
    groups: Sequence[Group],
    *,
    optimizer_type: str,
    optimizer_args: str,
    lr_scheduler: str,
    schedule_params: ScheduleParams,
    device: torch.device,
    lr_scheduler_type: str = "",
    lr_scheduler_args: str = "",
) -> Optimization:
    """Build the optimizer and its schedule; falls back, with a notice, where the row allows it.

    lr_scheduler_type: a class that takes the schedule's place, with lr_scheduler_args.

    Raises: SettingsError for arguments the optimizer does not know; MissingPackage.
    """
    given = parse_optimizer_args(optimizer_args)
    name, reason = _that_runs(optimizer_type, device)
    row, notices = catalog.OPTIMIZERS[name], tuple[str, ...]()
    if reason:
        takes = parse_optimizer_args(row.takes)
        kept = {k: v for k, v in given.items() if k in takes and _fits(v, takes[k])}
        notices = (_told(optimizer_type, name, reason, [k for k in given if k not in kept]),)
        given = kept
    renamed = {row.renamed.get(key, key): value for key, value in given.items()}
    arguments = {**row.defaults, **renamed}
    controls_lr = row.controls_lr_with(arguments)
    optimizer = _built(row, name, groups, arguments, own_rate=controls_lr == "rate")
    if row.one_rate:
        optimizer.register_step_pre_hook(_refuse_unequal_rates)
    scheduler: LrScheduler
    if controls_lr:
        scheduler = NoSchedule()
    elif lr_scheduler_type:
        scheduler = make_foreign_scheduler(optimizer, lr_scheduler_type, lr_scheduler_args)
    else:
        scheduler = make_lr_scheduler(optimizer, lr_scheduler, schedule_params)
    described = _described(optimizer, arguments)
    return Optimization(
        optimizer, scheduler, described, controls_lr == "rate", row.one_rate, name, notices
    )


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
    module, _, kind_name = name.rpartition(".")
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
    except (TypeError, ValueError) as error:
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
        group["name"]: rates[group["name"]] * float(group.get("d", 1.0))
        for group in optimization.optimizer.param_groups
    }


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Go on from a state, on the device where the weights lie, in the precisions of the state.

    torch gives what belongs to a weight the weight's precision, so that an optimizer with averages
    in float32 beside weights in bf16 (or in bf16 beside float32) would go on otherwise.
    """
    optimizer.load_state_dict(state)
    saved = [number for group in state["param_groups"] for number in group["params"]]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, weight in zip(saved, weights, strict=True):
        own = optimizer.state.get(weight)
        if own is not None and number in state["state"]:
            optimizer.state[weight] = _as_saved(own, state["state"][number])
    for group in optimizer.param_groups:  # torch moves what belongs to weights, not to groups
        for name, value in group.items():
            if isinstance(value, torch.Tensor):
                group[name] = value.to(group["params"][0].device)


def _as_saved(own: Any, saved: Any) -> Any:
    """What torch has read, but a tensor of another precision anew, from the saved one."""
    if isinstance(own, torch.Tensor) and isinstance(saved, torch.Tensor):
        # Copied: what is on the right device already would be shared with the state.
        return own if own.dtype == saved.dtype else saved.to(own.device, copy=True)
    if isinstance(own, dict) and isinstance(saved, dict):
        return {k: _as_saved(value, saved[k]) if k in saved else value for k, value in own.items()}
    if isinstance(own, list | tuple) and isinstance(saved, list | tuple) and len(own) == len(saved):
        return type(own)(_as_saved(*pair) for pair in zip(own, saved, strict=True))
    return own


@contextmanager
def averaged(optimization: Optimization) -> Iterator[None]:
    """Inside the block the weights are what a schedule-free optimizer recommends: their average.

    Afterwards they are what they were, to the last bit: turning an average back rounds, and a run
    must not depend on how often it was looked at.
    """
    optimizer: Any = optimization.optimizer
    if not averages(optimizer):
        yield
        return
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    learnt = [weight.detach().clone() for weight in weights]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for weight, kept in zip(weights, learnt, strict=True):
                weight.copy_(kept)


def averages(optimizer: Any) -> bool:
    """The optimizer learns one set of weights and recommends another (Defazio et al. 2024)."""
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper has both, always
    return hasattr(inner, "train") and hasattr(inner, "eval")


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


def _built(
    row: catalog.Optimizer,
    name: str,
    groups: Sequence[Group],
    arguments: dict[str, Any],
    *,
    own_rate: bool,
) -> Optimizer:
    kind = catalog.load(row.code, row.needs)
    _check_names(kind, name, arguments)
    parameters = [
        {"params": list(group.weights), "lr": None if own_rate else group.rate, "name": group.name}
        for group in groups
    ]
    rate = None if own_rate else groups[0].rate
    try:
        with redirect_stdout(StringIO()):  # some greet with what they were told
            optimizer: Optimizer = kind(parameters, lr=rate, **arguments)
    except (TypeError, ValueError) as error:
        shown = " ".join(f"{key}={value}" for key, value in arguments.items())
        raise SettingsError(
            [f"[basic] optimizer_args: {name} does not take {shown!r}: {error}"]
        ) from error
    if averages(optimizer):
        learner: Any = optimizer
        learner.train()
    return optimizer


def _refuse_unequal_rates(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
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


def _check_names(kind: Any, name: str, arguments: dict[str, Any]) -> None:
    """Refuse arguments that the class does not name: some swallow any and use none."""
    known = [
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    if unknown := [key for key in arguments if key not in known[1:] or key == "lr"]:
        raise SettingsError(
            [
                f"[basic] optimizer_args: {name} does not take {', '.join(unknown)}; it takes "
                f"{', '.join(key for key in known[1:] if key != 'lr')}"
            ]
        )


def _that_runs(name: str, device: torch.device) -> tuple[str, str]:
    """The name, or the first of its fallbacks that works on the device; and why."""
    reasons = []
    row = catalog.OPTIMIZERS[name]
    while row.fallback and (reason := _cannot_run(row, device)):
        reasons.append(reason)
        name, row = row.fallback, catalog.OPTIMIZERS[row.fallback]
    return name, (reasons or [""])[0]


def _told(asked: str, name: str, reason: str, unused: Sequence[str]) -> str:
    """What it means that another optimizer takes over."""
    notice = f"{asked} cannot run here ({reason}); {name} is used instead"
    wanted, other = (catalog.OPTIMIZERS[each].advised_lr for each in (asked, name))
    if wanted and other and wanted != other:
        notice += f", whose advised rate is {other:g}, not {wanted:g}"
    return notice + (f", without {', '.join(unused)}" if unused else "")


def _fits(value: Any, default: Any) -> bool:
    """Betas of three numbers are none for an optimizer of two."""
    lengths = {len(each) if isinstance(each, tuple) else 0 for each in (value, default)}
    return len(lengths) == 1


def _cannot_run(row: catalog.Optimizer, device: torch.device) -> str:
    """Why one step of this optimizer fails on the device; empty where it works."""
    try:
        # 8-bit states are used from 4096 values on; a smaller probe would not touch that code.
        probe = torch.nn.Parameter(torch.zeros(4096, device=device))
        probe.grad = torch.ones_like(probe)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore")
            warnings.filterwarnings("error", message="Paged optimizers are not supported")
            catalog.load(row.code, row.needs)([probe], lr=1e-3).step()
    except (
        KitError,
        UserWarning,
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
