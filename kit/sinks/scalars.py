"""The numbers of a step and of a validation under the tags that sd-scripts' users know."""

from __future__ import annotations

from kit.events import Stepped, Validated


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


def validation_scalars(event: Validated, *, per: str) -> dict[str, float]:
    """Every number of a validation, by tag; per: "step" or "epoch".

    Divergence is what the loss is above the training's own average.
    """
    found: dict[str, float | None] = {
        f"loss/validation/{per}_average": event.loss,
        f"loss/validation/{per}_divergence": event.loss - event.loss_average,
    }
    if per == "step":  # ours; sd-scripts knows none of them
        found |= {
            "loss/validation/base_model": event.base_loss,
            "loss/validation/trained_images": event.trained_loss,
            "loss/validation/class_word": event.prior_loss,
            "loss/validation/class_word_base_model": event.prior_base_loss,
            "loss/validation/carried": event.carried,
            "loss/validation/overfit_gap": event.gap,
            "loss/validation/overfit_auc": event.auc,
            **{f"loss/validation/band_{band}": loss for band, loss in enumerate(event.bands)},
        }
    return {tag: value for tag, value in found.items() if value is not None}


def ended_epoch(event: Stepped | Validated) -> int:
    """The epoch, from 1, that ended with this step; 0 where none did."""
    return int(event.epoch) if event.epoch == int(event.epoch) else 0
