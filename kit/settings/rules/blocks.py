"""Rules about the rates and ranks of single U-Net blocks."""

from __future__ import annotations

from collections.abc import Iterator

from kit import catalog
from kit.settings import Blocks, Model, NetworkSettings
from kit.settings.effective import lora_type, reads
from kit.settings.rules.rule import notice, problem
from kit.settings.unet_blocks import given_lists, given_weights, misfits


@problem
def lists_of_no_family(blocks: Blocks, model: Model) -> Iterator[str]:
    """Before the model is known: lists that fit no family, or not the one that is claimed."""
    families = ["sdxl"] if model.sdxl else list(catalog.FAMILIES)
    found = [list(misfits(blocks, catalog.FAMILIES[family].blocks)) for family in families]
    if all(found):
        yield from found[0]


@notice
def blocks_unused(blocks: Blocks, network: NetworkSettings) -> Iterator[str]:
    lists = given_lists(blocks)
    if blocks.block_lr_zero_threshold and not any(given_weights(blocks).values()):
        yield "block_lr_zero_threshold has no effect: no down, mid or up LR weights are given"
    conv = [name for name in ("conv_block_dims", "conv_block_alphas") if lists[name]]
    for name in conv if not lora_type(network).adapts_convolutions else ():
        yield f"{name} has no effect: LoRA_type = {network.LoRA_type} adapts no 3x3 convolutions"
    for name in () if reads(network, "network_alpha") else ("block_alphas", "conv_block_alphas"):
        if lists[name]:
            yield f"{name} has no effect: LoRA_type = {network.LoRA_type} has no alpha"
    if network.dim_from_weights:
        for name in (name for name, text in lists.items() if text):
            yield f"{name} has no effect: dim_from_weights is on"
