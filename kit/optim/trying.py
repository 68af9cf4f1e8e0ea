"""A few steps before anything is loaded: what an optimizer or a schedule refuses only there."""

from __future__ import annotations

import math
import warnings

import torch

from kit.errors import KitError, SettingsError, in_a_line
from kit.optim.optimization import BREAKS, Optimization

MOST = 20_000  # steps of a schedule that are tried: 0.2 s


def try_out(optimization: Optimization, steps: int, *, schedule: str = "") -> None:
    """Two steps of the optimizer, and all of a foreign schedule, with weights that are thrown away.

    steps: those of the run; schedule: the class that takes the schedule's place, "" for our own.

    Raises: SettingsError where they fail, or the rate becomes no number.
    """
    groups = optimization.optimizer.param_groups
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(min(2, steps)):
            for weight in (weight for group in groups for weight in group["params"]):
                weight.grad = torch.full_like(weight, 1e-3)
            try:
                optimization.optimizer.step()
            except KitError:
                raise
            except BREAKS as error:
                told = f"{optimization.name} fails in its first steps: {in_a_line(error)}"
                raise SettingsError([f"[basic] optimizer_args: {told}"]) from error
        for step in range(1, min(steps, MOST) + 1 if schedule else 1):
            try:
                optimization.scheduler.step()
            except KitError:
                raise
            except BREAKS as error:
                told = f"{schedule} fails at step {step} of {steps}: {in_a_line(error)}"
                raise SettingsError([f"[basic] lr_scheduler_args: {told}"]) from error
            if not all(math.isfinite(float(group["lr"])) for group in groups):
                told = f"{schedule} makes the rate no number at step {step} of {steps}"
                raise SettingsError([f"[basic] lr_scheduler_args: {told}"])
