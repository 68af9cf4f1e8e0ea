"""A step of a few numbers before anything is loaded: what some classes say only then.

Many check no argument when they are made. schedulefree takes any betas, fails in the first step
where they are no pair, and, where the first of them is 0, when the first picture is drawn.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO

import torch

from kit.errors import SettingsError
from kit.optim.averaging import averaged
from kit.optim.optimization import BREAKS, Optimization


def try_out(optimization: Optimization, steps: int) -> None:
    """Move the weights once, look at their average, and go through so many steps of the schedule.

    Raises: SettingsError where one of them fails, or leaves something that is no number.
    """
    optimizer, name = optimization.optimizer, optimization.asked
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    try:
        with torch.random.fork_rng(devices=[]), redirect_stdout(StringIO()):
            for weight in weights:
                weight.grad = torch.ones_like(weight)
            optimizer.step()
            with averaged(optimization):
                if not all(bool(weight.isfinite().all()) for weight in weights):
                    raise ArithmeticError("it makes weights of what is no number")
    except BREAKS as error:
        raise SettingsError(
            [f"[basic] optimizer_args: {name} cannot learn with these: {error}"]
        ) from error
    for step in range(1, steps + 1):
        try:
            optimization.scheduler.step()
        except BREAKS as error:
            kind = type(optimization.scheduler).__name__
            raise SettingsError(
                [f"[basic] lr_scheduler_args: {kind} fails at step {step}: {error}"]
            ) from error
