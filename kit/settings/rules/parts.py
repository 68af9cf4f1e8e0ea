"""Rules about the rates of single parts and blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kit import catalog
from kit.settings.rules import blocks as rules_blocks
from kit.settings.rules import optimizer as rules_optimizer
from kit.settings.rules.rates import encoder_learns, part_rates
from kit.settings.rules.schedule import own_rates

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
    lora_type = catalog.LORA_TYPES[settings.network.LoRA_type]
    conv = [name for name in ("conv_block_dims", "conv_block_alphas") if lists[name]]
    for name in conv if not lora_type.adapts_convolutions else ():
        yield (
            f"{name} has no effect: LoRA_type = {settings.network.LoRA_type} adapts no 3x3 "
            "convolutions"
        )
    for name in () if "network_alpha" in lora_type.uses else ("block_alphas", "conv_block_alphas"):
        if lists[name]:
            yield f"{name} has no effect: LoRA_type = {settings.network.LoRA_type} has no alpha"
    if settings.network.dim_from_weights:
        for name in (name for name, text in lists.items() if text):
            yield f"{name} has no effect: dim_from_weights is on"


def _stop_without_learning(settings: Settings) -> Iterator[str]:
    if settings.rates.stop_text_encoder_training and not encoder_learns(settings):
        yield "stop_text_encoder_training has no effect: the text encoder does not learn at all"


def _stop_alone(settings: Settings) -> Iterator[str]:
    """Where the text encoder is all that learns, the rest of the run would learn nothing."""
    share = settings.rates.stop_text_encoder_training
    if 0 < share < 100 and encoder_learns(settings) and not part_rates(settings)["unet"]:
        yield (
            f"[rates] stop_text_encoder_training: unet_lr is 0, so after {share} % of the steps "
            "nothing would learn; set it to 0 and shorten the run instead, or give unet_lr a rate"
        )


def _shares_of_no_rate(settings: Settings) -> Iterator[str]:
    """An optimizer or a schedule that sets the rates itself knows of no ratios between them."""
    own = own_rates(settings)
    if rules_optimizer.controls_lr(settings) != "rate" and not own:
        return
    rates, name = settings.rates, settings.basic.optimizer_type
    given = {
        "learning_rate_te2 (except 0)": bool(rates.learning_rate_te2),
        "loraplus_lr_ratio": any(plus_ratios(settings).values()),
        "down, mid and up LR weights (except 0)": any(
            rules_blocks.given_weights(settings.blocks).values()
        ),
    }
    for what in (what for what, is_given in given.items() if is_given):
        yield f"{what}: no effect, " + (
            f"{own.name} sets one rate for all" if own else f"{name} chooses its own rate"
        )


def _parts_that_do_not_learn(settings: Settings) -> Iterator[str]:
    rates, blocks = settings.rates, settings.blocks
    has_unet, has_encoder = bool(part_rates(settings)["unet"]), encoder_learns(settings)
    if rates.loraplus_unet_lr_ratio and not has_unet:
        yield "loraplus_unet_lr_ratio has no effect: the U-Net does not learn"
    if rates.loraplus_text_encoder_lr_ratio and not has_encoder:
        yield "loraplus_text_encoder_lr_ratio has no effect: no text encoder learns"
    if rules_blocks.uses_blocks(blocks) and not has_unet and not settings.network.network_weights:
        yield "LR weights, dims and alphas of blocks have no effect: the U-Net does not learn"


def _ratio_overruled(settings: Settings) -> Iterator[str]:
    rates = settings.rates
    own = (rates.loraplus_unet_lr_ratio, rates.loraplus_text_encoder_lr_ratio)
    if rates.loraplus_lr_ratio and None not in own:
        yield "loraplus_lr_ratio has no effect: the U-Net and the text encoder have their own"


PROBLEMS = (_blocks, _stop_alone)
NOTICES = (
    _blocks_unused,
    _stop_without_learning,
    _shares_of_no_rate,
    _parts_that_do_not_learn,
    _ratio_overruled,
)
