"""A step's numbers under the tags that sd-scripts' users know."""

from __future__ import annotations

from kit.events import Stepped

# The reference writes the text encoder's rate so; other groups keep their names.
RATE_TAGS = {"text_encoder": "textencoder"}


def scalars(event: Stepped) -> dict[str, float]:
    """Every number of a step, by tag."""
    return {
        "loss/current": event.loss,
        "loss/average": event.loss_average,
        **{f"lr/{RATE_TAGS.get(name, name)}": rate for name, rate in event.rates.items()},
        "norm/grad_norm": event.norm,
    }


def ended_epoch(event: Stepped) -> int:
    """The epoch, from 1, that ended with this step; 0 where none did."""
    return int(event.epoch) if event.epoch == int(event.epoch) else 0
