"""Which values an optimizer's arguments can have, without its class: what that, or a step, refuses.

A kind follows from the default in the catalog's row; bounds go by an argument's name, which means
the same everywhere. tests/optim/test_argument_values.py tries both on the classes themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kit import catalog
from kit.settings.optimizer_args import parse_optimizer_args

Bound = tuple[Callable[[float], bool], str]  # a condition, and in words what it asks for

_SHARE: Bound = (lambda v: 0 <= v < 1, "from 0 to below 1")
_POSITIVE: Bound = (lambda v: v > 0, "more than 0")
_NOT_NEGATIVE: Bound = (lambda v: v >= 0, "of 0 or more")
_COUNT: Bound = (lambda v: v >= 0 and v == int(v), "that is whole, and 0 or more")
BOUNDS: Mapping[str, Bound] = {
    "betas": _SHARE,
    "beta1": _SHARE,
    "beta3": _SHARE,
    "eps": _NOT_NEGATIVE,
    "eps1": _NOT_NEGATIVE,
    "eps2": _NOT_NEGATIVE,
    "momentum": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "d0": _POSITIVE,
    "d_coef": _POSITIVE,
    "growth_rate": _POSITIVE,
    "clip_threshold": _POSITIVE,  # they divide by it
    "t_alpha": _POSITIVE,
    "t_beta3": _POSITIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "weight_lr_power": _NOT_NEGATIVE,
    "schedulefree_c": _NOT_NEGATIVE,
    "prodigy_steps": _COUNT,
    "min_8bit_size": _COUNT,
    "slice_p": (lambda v: v >= 1 and v == int(v), "that is whole, and 1 or more"),
}
# Of single rows: narrower than the others'.
_OWN: Mapping[tuple[str, str], Bound] = {
    ("Prodigy", "eps"): _POSITIVE,
    ("prodigyplus.ProdigyPlusScheduleFree", "eps"): _POSITIVE,
    ("SGDScheduleFree", "momentum"): (lambda v: 0 < v < 1, "above 0 and below 1"),
    ("SGDNesterov8bit", "momentum"): (lambda v: 0 < v < 1, "above 0 and below 1"),
}
# None is a value of its own there, though it is not the default.
_MAY_BE_NONE = {
    ("prodigyplus.ProdigyPlusScheduleFree", "eps"),
    ("prodigyplus.ProdigyPlusScheduleFree", "betas"),
}
_INFINITE = ("growth_rate",)


def wrong_values(name: str, given: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each value that the optimizer of this name would refuse.

    given: as read, of names that it takes.
    """
    row = catalog.OPTIMIZERS[name]
    takes = parse_optimizer_args(row.takes)
    for argument, value in given.items():
        known = row.renamed.get(argument, argument)
        if known in takes and (why := _why_not(name, known, value, takes[known])):
            yield f"{argument} = {_shown(value)} {why}"
    yield from _contradictions(row, {**takes, **row.defaults, **given}, given)


def _why_not(name: str, argument: str, value: Any, default: Any) -> str:
    """Why a value cannot be, with what can; "" where it can."""
    if isinstance(default, bool):
        is_one = isinstance(value, bool) or value in (0, 1)
        return "" if is_one else f"is neither True nor False; write {argument}={default}"
    possible, words = _bound(name, argument)
    if isinstance(default, tuple):
        values = value if isinstance(value, tuple | list) else (value,)
        told = f"is not {len(default)} numbers {words}".rstrip()
        example = f"; write {argument}={','.join(f'{each:g}' for each in default)}"
        are_none = (name, argument) in _MAY_BE_NONE
        fits = len(values) == len(default) and all(
            (each is None and are_none and place > 0) or (_is_number(each) and possible(each))
            for place, each in enumerate(values)
        )
        return "" if fits else told + example
    if value is None and (default is None or (name, argument) in _MAY_BE_NONE):
        return ""
    is_one = _is_number(value, infinite=argument in _INFINITE) and possible(value)
    return "" if is_one else f"is no number {words}".rstrip()


def _bound(name: str, argument: str) -> Bound:
    row = catalog.OPTIMIZERS[name]
    usual = BOUNDS.get(argument, (lambda v: True, ""))
    if argument == "eps" and row.code.startswith("kit.optim.dadapt"):
        usual = _POSITIVE
    if argument == "momentum" and row.adapts:
        usual = _SHARE
    return _OWN.get((name, argument), usual)


def _is_number(value: Any, *, infinite: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) or (infinite and value > 0)


def _contradictions(
    row: catalog.Optimizer, values: Mapping[str, Any], given: Mapping[str, Any]
) -> Iterator[str]:
    """What single values do not show; values: all that count, given: those that were asked for."""
    is_sgd = row.code == "torch.optim:SGD"
    if is_sgd and values["nesterov"] and not (values["momentum"] != 0 == values["dampening"]):
        one = "momentum" if values["momentum"] == 0 else "dampening"
        yield (
            f"{one} = {_shown(values[one])} does not go with nesterov = True, which needs "
            "momentum and no dampening; add nesterov=False"
        )
    if row.code.endswith(":Adafactor") and values["warmup_init"] and not values["relative_step"]:
        yield "warmup_init = True needs relative_step = True; leave one of them out"
    if row.code.endswith(":DAdaptLion") and not given.get("decouple", True):
        yield "decouple = False is not possible: Lion decays weights beside the step; leave it out"


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
