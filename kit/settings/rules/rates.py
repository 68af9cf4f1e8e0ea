"""Rules about the rates of single parts."""

from __future__ import annotations

from collections.abc import Iterator

from kit.settings import Basic, Blocks, NetworkSettings, Rates, effective
from kit.settings.rules.rule import Idle, idle, notice, problem
from kit.settings.unet_blocks import given_lists, given_weights

PLUS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")


@problem
def stop_alone(basic: Basic, rates: Rates) -> Iterator[str]:
    """Where the text encoder is all that learns, the rest of the run would learn nothing."""
    share, learns = rates.stop_text_encoder_training, effective.encoder_learns(basic, rates)
    if 0 < share < 100 and learns and not effective.part_rates(basic, rates)["unet"]:
        yield (
            f"[rates] stop_text_encoder_training: unet_lr is 0, so after {share} % of the steps "
            "nothing would learn; set it to 0 and shorten the run instead, or give unet_lr a rate"
        )


@idle
def stop_without_learning(basic: Basic, rates: Rates) -> Iterator[Idle]:
    if not effective.encoder_learns(basic, rates):
        yield Idle("the text encoder does not learn at all", "stop_text_encoder_training")


@notice
def shares_of_no_rate(basic: Basic, rates: Rates, blocks: Blocks) -> Iterator[str]:
    """An optimizer or a schedule that sets the rates itself knows of no ratios between them."""
    given = {
        "learning_rate_te2": bool(rates.learning_rate_te2),
        "down, mid and up LR weights": any(given_weights(blocks).values()),
    }
    for what in (what for what, is_given in given.items() if is_given):
        if why := _one_rate_for_all(basic):
            yield f"{what} (except 0): no effect, {why}"


@idle
def ratios_of_no_rate(basic: Basic) -> Iterator[Idle]:
    if why := _one_rate_for_all(basic):
        yield Idle(why, *PLUS)


def _one_rate_for_all(basic: Basic) -> str:
    """Who sets the rates, so that there are no ratios between them; "" where nobody does."""
    if own := effective.own_rates(basic):
        return f"{own.name} sets one rate for all"
    if effective.controls_lr(basic) == "rate":
        return f"{basic.optimizer_type} chooses its own rate"
    return ""


@idle
def parts_that_do_not_learn(
    basic: Basic, rates: Rates, blocks: Blocks, network: NetworkSettings
) -> Iterator[Idle]:
    has_unet = bool(effective.part_rates(basic, rates)["unet"])
    if not has_unet:
        yield Idle("the U-Net does not learn", "loraplus_unet_lr_ratio")
    if not effective.encoder_learns(basic, rates):
        yield Idle("no text encoder learns", "loraplus_text_encoder_lr_ratio")
    if not has_unet and not network.network_weights:
        names = (*given_weights(blocks), *given_lists(blocks), "block_lr_zero_threshold")
        yield Idle("the U-Net does not learn", *names)


@idle
def ratio_overruled(rates: Rates) -> Iterator[Idle]:
    own = (rates.loraplus_unet_lr_ratio, rates.loraplus_text_encoder_lr_ratio)
    if None not in own:
        yield Idle("the U-Net and the text encoder have their own", "loraplus_lr_ratio")
