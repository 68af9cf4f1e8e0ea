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
from kit.errors import KitError, OutputError, SettingsError
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
from kit.optim.optimization import BREAKS, LrScheduler, Optimization
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
    made_with: str = "",
    made_for: str = "",
) -> Optimization:
    """Build the optimizer and its schedule; falls back, with a notice, where the row allows it.

    lr_scheduler_type: a class that takes the schedule's place, with lr_scheduler_args.
    flat: weights and gradients move into one buffer each; not for weights of which some get a
    gradient in one step and none in the next.
    made_with: the optimizer of the state that it will go on from, as the state says it. Where that
    was a fallback, it is built again: another one could not go on from its averages.
    made_for: what was asked for then; "" in states that do not say it.

    Raises: SettingsError for arguments the optimizer does not know; MissingPackage; OutputError
    where what the state was made with cannot run here.
    """
    given = parse_optimizer_args(optimizer_args)
    name, reason = _that_goes_on(optimizer_type, made_with, made_for, device)
    row, notices = catalog.OPTIMIZERS[name], tuple[str, ...]()
    if name != optimizer_type:
        takes = parse_optimizer_args(row.takes)
        kept = {k: v for k, v in given.items() if k in takes and _fits(v, takes[k])}
        notices = (_told(optimizer_type, name, reason, [k for k in given if k not in kept]),)
        given = kept
    renamed = {row.renamed.get(key, key): _floats(value) for key, value in given.items()}
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
        optimizer,
        scheduler,
        described,
        controls_lr == "rate",
        row.one_rate,
        name,
        notices,
        optimizer_type,
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
            if averages(optimizer):
                optimizer.train()  # which unpacks the betas, as nothing has before
            if flat:
                in_memory = [group.in_memory or group.weights for group in groups]
                optimizer.lay_flat(frozenset(row.elementwise.split()), in_memory)
    except BREAKS as error:
        shown = " ".join(f"{key}={value}" for key, value in arguments.items())
        raise SettingsError(
            [f"[basic] optimizer_args: {name} does not take {shown!r}: {error}"]
        ) from error
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


def class_name(optimizer: str) -> str:
    """The class of an optimizer, by its name in the menu or by a class path of any age."""
    row = catalog.OPTIMIZERS.get(optimizer)
    return (row.code.partition(":")[2] if row else optimizer).rpartition(".")[2]


def _that_goes_on(
    name: str, made_with: str, made_for: str, device: torch.device
) -> tuple[str, str]:
    """The name, or the fallback that runs here or that a state was made with; and why.

    A state's own that did not take this one's place is left to whoever reads the state.

    Raises: OutputError where the state's own cannot run here.
    """
    chain, kind = _fallbacks(name), class_name(made_with)
    own = [place for place, each in enumerate(chain) if class_name(each) == kind]
    if made_for not in ("", name) and own != [0]:
        own = []
    reasons = list[str]()
    for place, each in enumerate(chain):
        row = catalog.OPTIMIZERS[each]
        reason = _cannot_run(row, device) if row.fallback else ""
        if not reason and not (own and place < own[0]):
            return each, (reasons or [""])[0]
        if reason and place in own:
            raise _cannot_go_on(each, reason)
        if reason:
            reasons.append(reason)
    raise AssertionError("the last of the chain has no fallback")


def _fallbacks(name: str) -> list[str]:
    """The optimizer, and those that take its place, in their order."""
    chain = [name]
    while row := catalog.OPTIMIZERS[chain[-1]].fallback:
        chain.append(row)
    return chain


def _cannot_go_on(name: str, reason: str) -> OutputError:
    return OutputError(
        f"The state that the run goes on from was made with {name}, which cannot run here "
        f"({reason}).",
        "Another optimizer cannot go on from what this one has kept of each weight. The state is "
        "untouched.",
        f"Go on where {name} can run (with its package, or on a GPU as before), or begin another "
        "run beside this one: kit train with --begin-anew, or another output_name.",
    )


def _told(asked: str, name: str, reason: str, unused: Sequence[str]) -> str:
    """What it means that another optimizer takes over; reason: why not what was asked for."""
    without = f", without {', '.join(unused)}" if unused else ""
    if not reason:
        return (
            f"the state was made with {name}{without}, which takes the place of {asked} where that "
            f"cannot run; the training goes on with {name} to its end, and a new run gets {asked}"
        )
    notice = f"{asked} cannot run here ({reason}); {name} is used instead"
    wanted, other = (catalog.OPTIMIZERS[each].advised_lr for each in (asked, name))
    if wanted and other and wanted != other:
        notice += f", whose advised rate is {other:g}, not {wanted:g}"
    return notice + without


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
            catalog.load(row.code, row.needs)([probe], lr=1e-3, **row.defaults).step()
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


def _floats(value: Any) -> Any:
    """betas=0,0.99 are numbers of one kind: torch refuses a whole one beside others."""
    is_list = isinstance(value, tuple | list) and all(isinstance(v, int | float) for v in value)
    return tuple(map(float, value)) if is_list else value


def _described(kind: type[Optimizer], arguments: dict[str, Any]) -> str:
    shown = ",".join(f"{key}={value}" for key, value in arguments.items())
    return f"{kind.__module__}.{kind.__name__}" + (f"({shown})" if shown else "")
