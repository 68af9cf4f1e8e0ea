"""Rules about the rates of single parts."""

from __future__ import annotations

from collections.abc import Iterator

from kit.settings import Basic, Blocks, NetworkSettings, Rates, effective
from kit.settings.rules.rule import notice, problem
from kit.settings.unet_blocks import given_weights, uses_blocks


@problem
def stop_alone(basic: Basic, rates: Rates) -> Iterator[str]:
    """Where the text encoder is all that learns, the rest of the run would learn nothing."""
    share, learns = rates.stop_text_encoder_training, effective.encoder_learns(basic, rates)
    if 0 < share < 100 and learns and not effective.part_rates(basic, rates)["unet"]:
        yield (
            f"[rates] stop_text_encoder_training: unet_lr is 0, so after {share} % of the steps "
            "nothing would learn; set it to 0 and shorten the run instead, or give unet_lr a rate"
        )


@notice
def stop_without_learning(basic: Basic, rates: Rates) -> Iterator[str]:
    if rates.stop_text_encoder_training and not effective.encoder_learns(basic, rates):
        yield "stop_text_encoder_training has no effect: the text encoder does not learn at all"


@notice
def shares_of_no_rate(basic: Basic, rates: Rates, blocks: Blocks) -> Iterator[str]:
    """An optimizer or a schedule that sets the rates itself knows of no ratios between them."""
    own = effective.own_rates(basic)
    if effective.controls_lr(basic) != "rate" and not own:
        return
    given = {
        "learning_rate_te2 (except 0)": bool(rates.learning_rate_te2),
        "loraplus_lr_ratio": any(effective.plus_ratios(rates).values()),
        "down, mid and up LR weights (except 0)": any(given_weights(blocks).values()),
    }
    for what in (what for what, is_given in given.items() if is_given):
        yield f"{what}: no effect, " + (
            f"{own.name} sets one rate for all"
            if own
            else f"{basic.optimizer_type} chooses its own rate"
        )


@notice
def parts_that_do_not_learn(
    basic: Basic, rates: Rates, blocks: Blocks, network: NetworkSettings
) -> Iterator[str]:
    has_unet = bool(effective.part_rates(basic, rates)["unet"])
    if rates.loraplus_unet_lr_ratio and not has_unet:
        yield "loraplus_unet_lr_ratio has no effect: the U-Net does not learn"
    if rates.loraplus_text_encoder_lr_ratio and not effective.encoder_learns(basic, rates):
        yield "loraplus_text_encoder_lr_ratio has no effect: no text encoder learns"
    if uses_blocks(blocks) and not has_unet and not network.network_weights:
        yield "LR weights, dims and alphas of blocks have no effect: the U-Net does not learn"


@notice
def ratio_overruled(rates: Rates) -> Iterator[str]:
    own = (rates.loraplus_unet_lr_ratio, rates.loraplus_text_encoder_lr_ratio)
    if rates.loraplus_lr_ratio and None not in own:
        yield "loraplus_lr_ratio has no effect: the U-Net and the text encoder have their own"
