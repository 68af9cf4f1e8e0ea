"""Rules about a schedule that is a class of torch and sets the rates by itself.

Most classes move the rate that a part has. OneCycleLR and CyclicLR put rates of their own in its
place, the same for every part unless they are given as many as there are parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.settings.optimizer_args import parse_optimizer_args

if TYPE_CHECKING:
    from kit.settings import Settings


@dataclass(frozen=True)
class OwnRates:
    """The rates that a schedule sets: one for all parts, or one per part, text encoders first."""

    name: str
    first: tuple[float, ...]
    highest: tuple[float, ...]
    last: tuple[float, ...]  # of OneCycleLR, which ends; of CyclicLR the lowest

    def __str__(self) -> str:
        """The rates in words."""
        first, highest, last = map(_listed, (self.first, self.highest, self.last))
        if self.name == "OneCycleLR":
            return f"OneCycleLR's own, from {first} up to {highest} and down to {last}"
        return f"{self.name}'s own, from {last} to {highest} and back"


NEEDED = {"OneCycleLR": ("max_lr",), "CyclicLR": ("base_lr", "max_lr")}


def class_name(settings: Settings) -> str:
    """`OneCycleLR`, with or without torch.optim.lr_scheduler before it; other classes blank."""
    module, _, name = settings.basic.lr_scheduler_type.strip().rpartition(".")
    return name if module in ("", "torch.optim.lr_scheduler") else ""


def arguments(settings: Settings) -> dict[str, Any]:
    """lr_scheduler_args, read; none where they cannot be."""
    try:
        return parse_optimizer_args(settings.basic.lr_scheduler_args)
    except ValueError:
        return {}


def own_rates(settings: Settings) -> OwnRates | None:
    """The rates that torch will use instead of the parts' own; None where it uses those.

    Source: torch.optim.lr_scheduler, OneCycleLR (max_lr, div_factor, final_div_factor) and
    CyclicLR (base_lr, max_lr).
    """
    from kit.settings.rules.optimizer import controls_lr  # which asks own_rates() of this file

    name, given = class_name(settings), arguments(settings)
    highest = _rates(given.get("max_lr"))
    if controls_lr(settings) or not highest:
        return None
    if name == "CyclicLR" and (lowest := _rates(given.get("base_lr"))):
        return OwnRates(name, lowest, highest, lowest)
    divisors = [given.get("div_factor", 25.0), given.get("final_div_factor", 1e4)]
    if name != "OneCycleLR" or not all(isinstance(each, int | float) and each for each in divisors):
        return None
    first = tuple(rate / divisors[0] for rate in highest)
    return OwnRates(name, first, highest, tuple(rate / divisors[1] for rate in first))


def _rates(given: Any) -> tuple[float, ...]:
    rates = tuple(given) if isinstance(given, list | tuple) else (given,)
    return rates if all(isinstance(rate, int | float) for rate in rates) else ()


def _listed(rates: tuple[float, ...]) -> str:
    return " and ".join(dict.fromkeys(f"{rate:g}" for rate in rates))


def length_problems(settings: Settings, total: int) -> Iterator[str]:
    """Arguments without which torch makes no such schedule, and a OneCycleLR that ends too early.

    torch raises at the step after its last.
    """
    from kit.settings.rules.optimizer import controls_lr  # which asks own_rates() of this file

    name, given = class_name(settings), arguments(settings)
    missing = [each for each in NEEDED.get(name, ()) if each not in given]
    if name == "OneCycleLR" and not {"total_steps", "epochs"} & set(given):
        missing.append("total_steps")
    if missing and not controls_lr(settings):
        shown = {"total_steps": total, "base_lr": 1e-5, "max_lr": 1e-4}
        yield (
            f"[basic] lr_scheduler_args: {name} needs {' and '.join(missing)}; write e.g. "
            + " ".join(f"{each}={shown[each]:g}" for each in missing)
        )
    steps = _cycle_steps(settings)
    if 0 < steps < total:
        yield (
            f"[basic] lr_scheduler_args: OneCycleLR ends after {steps} steps and refuses to go on, "
            f"but the run has {total}; write total_steps={total}"
        )


def length_notices(settings: Settings, total: int) -> Iterator[str]:
    """A OneCycleLR that the run leaves before its end."""
    steps = _cycle_steps(settings)
    if steps > total:
        yield (
            f"OneCycleLR would end after {steps} steps, the run does after {total}: its last rate "
            f"is never reached; total_steps={total} in lr_scheduler_args reaches it"
        )


def _cycle_steps(settings: Settings) -> int:
    """The steps of OneCycleLR as its arguments have them; 0 where that is not to be seen."""
    given = arguments(settings)
    if class_name(settings) != "OneCycleLR" or not own_rates(settings):
        return 0
    steps = given.get("total_steps")
    if steps is None and {"epochs", "steps_per_epoch"} <= set(given):
        steps = given["epochs"] * given["steps_per_epoch"]
    return steps if isinstance(steps, int) else 0


def _sets_rates(settings: Settings) -> Iterator[str]:
    own = own_rates(settings)
    if not own:
        return
    name, given = own.name, arguments(settings)
    yield (
        f"{name} sets the rates by max_lr: learning_rate, unet_lr and text_encoder_lr (except 0) "
        "have no effect"
    )
    if given.get("cycle_momentum", True):
        least, most = (0.85, 0.95) if name == "OneCycleLR" else (0.8, 0.9)
        least, most = given.get("base_momentum", least), given.get("max_momentum", most)
        yield (
            f"{name} moves the optimizer's momentum (the first of its betas), too, between "
            f"{least} and {most}; cycle_momentum=False in lr_scheduler_args keeps it"
        )


NOTICES = (_sets_rates,)
