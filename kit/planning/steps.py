"""Arithmetic of steps: how many there are, which batches make one, what is due after one.

Steps are optimizer updates, from 1; micro-steps are batches over the whole run, from 0.
"""

from __future__ import annotations

import math

from kit.settings import Basic, Rates, effective


def gathered(basic: Basic, processes: int) -> int:
    """The batches of a step: several processes do together what one does by accumulating."""
    return basic.gradient_accumulation_steps * processes


def steps_per_epoch(batches: int, gathered: int) -> int:
    """The last step of an epoch may have fewer batches."""
    return math.ceil(batches / gathered)


def total_steps(basic: Basic, per_epoch: int) -> int:
    """Max train epoch before Max train steps before Epoch."""
    if basic.max_train_epochs:
        return basic.max_train_epochs * per_epoch
    return basic.max_train_steps or basic.epoch * per_epoch


def warmup_steps(basic: Basic, rates: Rates, total: int) -> int:
    """The steps given, or the share of the total, rounded down; 0 for constant."""
    if not effective.warms_up(basic, rates):
        return 0
    if basic.lr_warmup_steps is not None:
        return min(total, basic.lr_warmup_steps)
    return int(total * basic.lr_warmup / 100)  # in this order 29 % of 100 is 29, not 28.999


def share_or_steps(value: float, total: int) -> int:
    """A number of steps, or below 1 a share of them."""
    return int(value * total) if value < 1 else int(value)


def micro_steps(step: int, batches_per_epoch: int, gathered: int) -> range:
    """The micro-steps that make up a step; none reaches into the next epoch."""
    epoch, place = divmod(step - 1, steps_per_epoch(batches_per_epoch, gathered))
    first = epoch * batches_per_epoch + place * gathered
    return range(first, min(first + gathered, (epoch + 1) * batches_per_epoch))


def step_of(micro_step: int, batches_per_epoch: int, gathered: int) -> int:
    """The step that a micro-step belongs to."""
    epoch, within = divmod(micro_step, batches_per_epoch)
    return epoch * steps_per_epoch(batches_per_epoch, gathered) + within // gathered + 1


def every(count: int, interval: int | None) -> bool:
    """It is the turn of what is done at each so many; never where no interval is given."""
    return bool(interval) and count % int(interval or 1) == 0
