"""Rules about the rates of single parts and blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kit import catalog
from kit.settings import rules_blocks
from kit.settings.rules_rates import encoder_learns

if TYPE_CHECKING:
    from kit.settings import Settings


def plus_ratios(settings: Settings) -> dict[str, float]:
    """LoRA+'s ratio for the U-Net and the text encoders; the more special one counts."""
    rates = settings.rates
    both = rates.loraplus_lr_ratio or 0.0
    own = {
        "unet": rates.loraplus_unet_lr_ratio,
        "textencoder": rates.loraplus_text_encoder_lr_ratio,
    }
    return {part: both if ratio is None else ratio for part, ratio in own.items()}


def block_problems(settings: Settings, family: str) -> list[str]:
    """Block lists that do not fit a family; all of them at once."""
    layout = catalog.FAMILIES[family].blocks
    if not rules_blocks.uses_blocks(settings.blocks):
        return []
    return list(rules_blocks.problems(settings.blocks, layout))


def _blocks(settings: Settings) -> Iterator[str]:
    """Before the model is known: lists that fit no family, or not the one that is claimed."""
    families = ["sdxl"] if settings.model.sdxl else list(catalog.FAMILIES)
    found = [block_problems(settings, family) for family in families]
    if all(found):
        yield from found[0]


def _blocks_unused(settings: Settings) -> Iterator[str]:
    blocks, lists = settings.blocks, rules_blocks.given_lists(settings.blocks)
    weighted = any(rules_blocks.given_weights(blocks).values())
    if blocks.block_lr_zero_threshold and not weighted:
        yield "block_lr_zero_threshold has no effect: no down, mid or up LR weights are given"
    kind = catalog.KINDS[settings.network.LoRA_type]
    conv = [name for name in ("conv_block_dims", "conv_block_alphas") if lists[name]]
    for name in conv if not kind.adapts_convolutions else ():
        yield (
            f"{name} has no effect: LoRA_type = {settings.network.LoRA_type} adapts no 3x3 "
            "convolutions"
        )
    if settings.network.dim_from_weights:
        for name in (name for name, text in lists.items() if text):
            yield f"{name} has no effect: dim_from_weights is on"


def _stop_without_learning(settings: Settings) -> Iterator[str]:
    if settings.rates.stop_text_encoder_training and not encoder_learns(settings):
        yield "stop_text_encoder_training has no effect: the text encoder does not learn at all"


PROBLEMS = (_blocks,)
NOTICES = (_blocks_unused, _stop_without_learning)
