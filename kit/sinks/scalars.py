"""A step's numbers under the tags that sd-scripts' users know."""

from __future__ import annotations

from kit.events import Stepped


def scalars(event: Stepped) -> dict[str, float]:
    """Every number of a step, by tag."""
    given = event.given_rates or event.rates
    found = event.rates if event.given_rates else {}  # d, the step size that is estimated, times lr
    return {
        "loss/current": event.loss,
        "loss/average": event.loss_average,
        **{f"lr/{name}": rate for name, rate in given.items()},
        **{f"lr/d*lr/{name}": rate for name, rate in found.items()},
        "norm/grad_norm": event.norm,
    }


def ended_epoch(event: Stepped) -> int:
    """The epoch, from 1, that ended with this step; 0 where none did."""
    return int(event.epoch) if event.epoch == int(event.epoch) else 0
