"""A class in lr_scheduler_type, and what it is given: looked at before torch is loaded.

What only its own code can say is found by trying it out, before a base model is read:
`kit.optim.trial`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kit.errors import nearest
from kit.reading.classes import Argument, Class, classes_in, is_installed, names_in

TORCH = "torch.optim.lr_scheduler"
# What cannot be written in a line of text, or goes by something else than steps.
WANTS_MORE = {
    "LambdaLR": "is made of a function of Python, which cannot be written here",
    "MultiplicativeLR": "is made of a function of Python, which cannot be written here",
    "SequentialLR": "is made of other schedules, which cannot be written here",
    "ChainedScheduler": "is made of other schedules, which cannot be written here",
    "ReduceLROnPlateau": "is no schedule that goes by steps alone",
    "LRScheduler": "is what schedules are made of, and none itself",
}
GIVEN = ("optimizer", "last_epoch")  # by us
OPTIMIZERS_OWN = ("betas", "momentum")
WHOLE_FROM_1 = ("T_0", "T_mult")
ABOVE_0 = (
    "step_size", "T_max", "total_iters", "step_size_up", "step_size_down", "total_steps", "epochs",
    "steps_per_epoch", "div_factor", "final_div_factor",
)  # fmt: skip
SHARES = ("factor", "start_factor", "end_factor")
CHOICES = {
    "anneal_strategy": ("cos", "linear"),
    "mode": ("triangular", "triangular2", "exp_range"),
    "scale_mode": ("cycle", "iterations"),
}


def place_of(name: str) -> tuple[str, str]:
    """`StepLR` or `package.module.Class` as module and class."""
    module, _, kind = name.strip().rpartition(".")
    return module or TORCH, kind


def wrong_class(name: str) -> str:
    """Why there is no such schedule, as the end of a sentence; "" where there may be one."""
    module, kind = place_of(name)
    top = module.partition(".")[0]
    if not kind.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        return "is no name of a class; write one such as StepLR, or package.module.Class"
    if not is_installed(top):
        return f"is of the package {top}, which is not installed: pip install {top}"
    found = classes_in(module)
    if module == TORCH:
        if kind in WANTS_MORE:
            return WANTS_MORE[kind]
        possible = _schedules(found or {})
        if possible and kind not in possible:
            meant = nearest(kind, possible)
            return f"is no schedule of torch{meant}; there are {', '.join(possible)}"
    elif found is not None and kind not in names_in(module):
        return f"is not there: {module} has no class {kind}{nearest(kind, found)}"
    return ""


def _schedules(found: Mapping[str, Class]) -> list[str]:
    """Those of torch that can be written here."""
    return [n for n, each in found.items() if each.bases and n not in WANTS_MORE and n[0] != "_"]


def wrong_arguments(name: str, given: Mapping[str, Any], takes: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each argument that the class would refuse, as far as its source says that.

    takes: the optimizer's own arguments.
    """
    module, kind = place_of(name)
    found = (classes_in(module) or {}).get(kind)
    if found is None or found.arguments is None:
        return
    known = {each.name: each for each in found.arguments if each.name not in GIVEN}
    for argument, value in given.items():
        if argument not in known:
            possible = f"; it takes {', '.join(known)}" if known else ""
            yield f"{kind} does not take {argument}{nearest(argument, known)}{possible}"
        elif module == TORCH and (why := _why_not(known[argument], value)):
            yield f"{argument} = {value} {why}"
    missing = [n for n, each in known.items() if each.is_needed and n not in given]
    if missing and kind not in TOLD_LATER:
        example = " ".join(f"{each}={EXAMPLES.get(each, '...')}" for each in missing)
        yield f"{kind} needs {' and '.join(missing)}; write e.g. {example}"
    moves = "cycle_momentum" in known and given.get("cycle_momentum", True)
    if module == TORCH and moves and not set(OPTIMIZERS_OWN) & set(takes):
        yield (
            f"{kind} moves the optimizer's momentum, and this one has none; add "
            "cycle_momentum=False"
        )


# What they need depends on the run's length, and is told once that is known.
TOLD_LATER = ("OneCycleLR", "CyclicLR")
EXAMPLES = {
    "step_size": "100", "milestones": "100,200", "gamma": "0.99", "T_max": "100", "T_0": "100",
    "base_lr": "1e-5", "max_lr": "1e-4",
}  # fmt: skip


def _why_not(argument: Argument, value: Any) -> str:
    """Why a value cannot be, as the end of a sentence; "" where it may."""
    name, kind = argument.name, argument.kind.lower()
    if not kind or (value is None and "none" in kind):
        return ""
    if name in CHOICES:
        return "" if value in CHOICES[name] else f"is not possible; it can be {_or(CHOICES[name])}"
    if kind == "bool":
        return "" if isinstance(value, bool) or value in (0, 1) else "is neither True nor False"
    is_list = isinstance(value, tuple | list)
    if name == "milestones":
        if is_list and all(_is_number(each) for each in value):
            return ""
        return "is no list of steps; write milestones=100,200, or milestones=[100] for one"
    numbers = value if is_list and "list" in kind else (value,)
    if not all(_is_number(each) for each in numbers):
        return "is no number"
    if name in WHOLE_FROM_1 and not (isinstance(value, int) and value >= 1):
        return "is no whole number from 1"
    if name in ABOVE_0 and not all(each > 0 for each in numbers):
        return "is not more than 0"
    if name == "pct_start" and not 0 < value < 1:
        return "does not lie between 0 and 1"
    least = 1e-30 if name == "start_factor" else 0  # torch divides by it
    if name in SHARES and not all(least <= each <= 1 for each in numbers):
        return "does not lie between 0 and 1"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _or(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
