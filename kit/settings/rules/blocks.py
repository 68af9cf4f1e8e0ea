"""Rules about the rates and ranks of single U-Net blocks."""

from __future__ import annotations

from collections.abc import Iterator

from kit import catalog
from kit.settings import Blocks, Model, NetworkSettings
from kit.settings.effective import lora_type, reads
from kit.settings.rules.rule import Idle, idle, problem
from kit.settings.unet_blocks import given_lists, given_weights, misfits


@problem
def lists_of_no_family(blocks: Blocks, model: Model) -> Iterator[str]:
    """Before the model is known: lists that fit no family, or not the one that is claimed."""
    families = ["sdxl"] if model.sdxl else list(catalog.FAMILIES)
    found = [list(misfits(blocks, catalog.FAMILIES[family].blocks)) for family in families]
    if all(found):
        yield from found[0]


@idle
def blocks_unused(blocks: Blocks, network: NetworkSettings) -> Iterator[Idle]:
    told = f"LoRA_type = {network.LoRA_type}"
    if not any(given_weights(blocks).values()):
        yield Idle("no down, mid or up LR weights are given", "block_lr_zero_threshold")
    if not lora_type(network).adapts_convolutions:
        yield Idle(f"{told} adapts no 3x3 convolutions", "conv_block_dims", "conv_block_alphas")
    if not reads(network, "network_alpha"):
        yield Idle(f"{told} has no alpha", "block_alphas", "conv_block_alphas")
    if network.dim_from_weights:
        yield Idle("dim_from_weights is on", *given_lists(blocks))
