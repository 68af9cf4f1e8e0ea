"""Optimizers made from the catalog's rows, each with its learning-rate schedule."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch.optim import Optimizer

from kit import catalog
from kit.adapters.param_groups import Group
from kit.catalog.lr_schedules import ScheduleParams
from kit.errors import KitError, SettingsError
from kit.optim.averaging import averages
from kit.optim.flat import Flat, can_lie_flat, flat_kind
from kit.optim.flat_adamw import FlatAdamW
from kit.optim.flat_bits import bits_kind
from kit.optim.learning_rates import (
    NoSchedule,
    make_foreign_scheduler,
    make_lr_scheduler,
    refuse_unequal_rates,
)
from kit.optim.optimization import LrScheduler, Optimization
from kit.settings.optimizer_args import parse_optimizer_args


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
    flat: bool = True,
) -> Optimization:
    """Build the optimizer and its schedule; falls back, with a notice, where the row allows it.

    lr_scheduler_type: a class that takes the schedule's place, with lr_scheduler_args.
    flat: weights and gradients move into one buffer each; not for weights of which some get a
    gradient in one step and none in the next.

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
    optimizer = _built(row, name, groups, arguments, own_rate=controls_lr == "rate", flat=flat)
    if row.one_rate:
        optimizer.register_step_pre_hook(refuse_unequal_rates)
    scheduler: LrScheduler
    if controls_lr:
        scheduler = NoSchedule()
    elif lr_scheduler_type:
        scheduler = make_foreign_scheduler(optimizer, lr_scheduler_type, lr_scheduler_args)
    else:
        scheduler = make_lr_scheduler(optimizer, lr_scheduler, schedule_params)
    described = _described(catalog.load(row.code, row.needs), arguments)
    return Optimization(
        optimizer, scheduler, described, controls_lr == "rate", row.one_rate, name, notices
    )


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


def _built(
    row: catalog.Optimizer,
    name: str,
    groups: Sequence[Group],
    arguments: dict[str, Any],
    *,
    own_rate: bool,
    flat: bool,
) -> Optimizer:
    kind = catalog.load(row.code, row.needs)
    _check_names(kind, name, arguments)
    flat = flat and can_lie_flat([group.weights for group in groups])
    maker: Any = _flat(kind, row) if flat else kind
    parameters = [
        {"params": list(group.weights), "lr": None if own_rate else group.rate, "name": group.name}
        for group in groups
    ]
    rate = None if own_rate else groups[0].rate
    try:
        with redirect_stdout(StringIO()):  # some greet with what they were told
            optimizer: Any = maker(parameters, lr=rate, **arguments)
    except (TypeError, ValueError) as error:
        shown = " ".join(f"{key}={value}" for key, value in arguments.items())
        raise SettingsError(
            [f"[basic] optimizer_args: {name} does not take {shown!r}: {error}"]
        ) from error
    if averages(optimizer):
        optimizer.train()
    if flat:
        in_memory = [group.in_memory or group.weights for group in groups]
        optimizer.lay_flat(frozenset(row.elementwise.split()), in_memory)
    made: Optimizer = optimizer
    return made


def _flat(kind: Any, row: catalog.Optimizer) -> type[Flat]:
    """The class whose weights lie flat."""
    if kind is torch.optim.AdamW:
        return FlatAdamW
    is_bits = row.needs == "bitsandbytes" and row.elementwise
    return bits_kind(kind) if is_bits else flat_kind(kind)


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


def _described(kind: type[Optimizer], arguments: dict[str, Any]) -> str:
    shown = ",".join(f"{key}={value}" for key, value in arguments.items())
    return f"{kind.__module__}.{kind.__name__}" + (f"({shown})" if shown else "")
