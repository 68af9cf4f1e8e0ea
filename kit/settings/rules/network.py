"""Rules about the LoRA type and the settings that only some types read."""

from __future__ import annotations

from collections.abc import Iterator

from kit.catalog import lora_shapes
from kit.settings import Basic, NetworkSettings
from kit.settings.effective import lora_type, reads, unread_by
from kit.settings.rules.rule import Changed, notice, problem
from kit.settings.targets import PRESETS, preset_of

CONVOLUTIONS = ("conv_dim", "conv_alpha")
# Widths of layers in every Stable Diffusion: what divides these divides the others.
WIDTHS = {"unet": 320, "text encoder": 768}


@problem
def dim_from_weights_without_file(network: NetworkSettings) -> Iterator[str]:
    if network.dim_from_weights and not network.network_weights:
        yield (
            "[network] dim_from_weights: there is no file to take them from; set network_weights, "
            "or turn it off"
        )


@problem
def unit(network: NetworkSettings) -> Iterator[str]:
    if not reads(network, "unit") or network.dim_from_weights:
        return
    for name, rank in (("network_dim", network.network_dim), ("conv_dim", network.conv_dim)):
        if rank and rank % network.unit:
            yield (
                f"[network] unit: {network.unit} does not divide {name} = {rank}; take a unit that "
                "does, e.g. 1"
            )


@problem
def blocks_that_do_not_fit(network: NetworkSettings) -> Iterator[str]:
    if not lora_type(network).needs_even_blocks or network.dim_from_weights:
        return
    least = max(lora_shapes.butterfly_side(width) for width in WIDTHS.values())
    for name, rank in (("network_dim", network.network_dim), ("conv_dim", network.conv_dim)):
        if rank and rank < least:
            yield (
                f"[network] {name}: {network.LoRA_type} cannot divide layers of "
                f"{WIDTHS['unet']} outputs into blocks of {rank} or less; take {least} or more"
            )


@problem
def preset(network: NetworkSettings) -> Iterator[str]:
    if not reads(network, "LyCORIS_preset"):
        return
    try:
        preset_of(network.LyCORIS_preset)
    except ValueError as error:
        yield f"[network] LyCORIS_preset: {error}"


@notice
def unread_by_type(network: NetworkSettings, changed: Changed) -> Iterator[str]:
    for name in sorted(unread_by(network.LoRA_type)):
        if name not in changed:
            continue
        if name in CONVOLUTIONS and not lora_type(network).adapts_convolutions:
            why = f"LoRA_type = {network.LoRA_type} adapts no 3x3 convolutions"
        else:
            why = f"LoRA_type = {network.LoRA_type} does not use it"
        yield f"{name} has no effect: {why}"


@notice
def layers_of_a_preset(network: NetworkSettings, basic: Basic, changed: Changed) -> Iterator[str]:
    """What belongs to layers that the preset leaves alone."""
    if not reads(network, "LyCORIS_preset") or network.LyCORIS_preset not in PRESETS:
        return
    chosen, told = PRESETS[network.LyCORIS_preset], f"LyCORIS_preset = {network.LyCORIS_preset}"
    for name in (*CONVOLUTIONS, "use_tucker") if not chosen.convolutions else ():
        if name in changed and reads(network, name):
            yield f"{name} has no effect: {told} adapts no 3x3 convolutions"
    encoder_learns = basic.text_encoder_lr and "text_encoder_lr" in changed
    if encoder_learns and not (chosen.text_encoder or chosen.text_encoder_names):
        yield f"text_encoder_lr has no effect: {told} adapts no text encoder"


@notice
def sides_of_a_preset(network: NetworkSettings, changed: Changed) -> Iterator[str]:
    if reads(network, "train_on_input") and network.LyCORIS_preset in PRESETS:
        fixed = PRESETS[network.LyCORIS_preset].on_input is not None
        if fixed and "train_on_input" in changed:
            yield (
                f"train_on_input has no effect: LyCORIS_preset = {network.LyCORIS_preset} says for "
                "each layer which side is scaled"
            )


@notice
def sizes_of_a_file(network: NetworkSettings) -> Iterator[str]:
    if network.dim_from_weights:
        yield "network_dim and network_alpha have no effect: dim_from_weights is on"


@notice
def dropouts_that_are_off(network: NetworkSettings) -> Iterator[str]:
    if network.rank_dropout:
        if reads(network, "bypass_mode") and network.bypass_mode and network.dora_wd:
            yield "bypass_mode has no effect: dora_wd is on, which always works on outputs"
        return
    for name, is_on in (
        ("rank_dropout_scale", network.rank_dropout_scale),
        ("bypass_mode", network.bypass_mode),
    ):
        if is_on and reads(network, name):
            yield f"{name} has no effect: rank_dropout is 0"


@notice
def axis_without_dora(network: NetworkSettings) -> Iterator[str]:
    if network.wd_on_output and reads(network, "wd_on_output") and not network.dora_wd:
        yield "wd_on_output has no effect: dora_wd is off"


@notice
def strong_alpha(network: NetworkSettings) -> Iterator[str]:
    if network.dim_from_weights or not reads(network, "network_alpha"):
        return
    if network.network_alpha > network.network_dim:
        strength = network.network_alpha / network.network_dim
        yield (
            f"network_alpha = {network.network_alpha:g} is more than network_dim = "
            f"{network.network_dim}: the LoRA is applied at {strength:g} times its weights, and "
            "learns that much faster"
        )
