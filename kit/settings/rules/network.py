"""Rules about the LoRA type and the settings that only some types read."""

from __future__ import annotations

from collections.abc import Iterator

from kit.catalog import lora_shapes
from kit.settings import Basic, NetworkSettings
from kit.settings.effective import lora_type, reads, unread_by
from kit.settings.rules.rule import Changed, Idle, idle, notice, problem
from kit.settings.targets import PRESETS, Preset, preset_of

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


@idle
def unread_by_type(network: NetworkSettings) -> Iterator[Idle]:
    told, row = f"LoRA_type = {network.LoRA_type}", lora_type(network)
    for name in sorted(unread_by(network.LoRA_type)):
        without = name in CONVOLUTIONS and not row.adapts_convolutions
        yield Idle(f"{told} {'adapts no 3x3 convolutions' if without else 'does not use it'}", name)


@idle
def convolutions_of_a_preset(network: NetworkSettings) -> Iterator[Idle]:
    """What belongs to layers that the preset leaves alone."""
    chosen = _known_preset(network)
    if chosen is not None and not chosen.convolutions:
        why = f"LyCORIS_preset = {network.LyCORIS_preset} adapts no 3x3 convolutions"
        yield Idle(why, *_read(network, *CONVOLUTIONS, "use_tucker"))


@notice
def encoder_of_a_preset(network: NetworkSettings, basic: Basic, changed: Changed) -> Iterator[str]:
    """A rate of 0 counts all the same: then what an encoder says can be cached."""
    chosen = _known_preset(network)
    if chosen is None or not basic.text_encoder_lr or "text_encoder_lr" not in changed:
        return
    if not (chosen.text_encoder or chosen.text_encoder_names):
        yield (
            f"text_encoder_lr (except 0) has no effect: LyCORIS_preset = {network.LyCORIS_preset} "
            "adapts no text encoder"
        )


def _known_preset(network: NetworkSettings) -> Preset | None:
    """None where the LoRA type has none, or it stands in a file."""
    is_read = reads(network, "LyCORIS_preset")
    return PRESETS.get(network.LyCORIS_preset) if is_read else None


@idle
def sides_of_a_preset(network: NetworkSettings) -> Iterator[Idle]:
    chosen = _known_preset(network)
    if chosen is not None and chosen.on_input is not None:
        why = f"LyCORIS_preset = {network.LyCORIS_preset} says for each layer which side is scaled"
        yield Idle(why, *_read(network, "train_on_input"))


@idle
def sizes_of_a_file(network: NetworkSettings) -> Iterator[Idle]:
    if network.dim_from_weights:
        names = ("network_dim", "network_alpha", *CONVOLUTIONS, "rs_lora")
        yield Idle("dim_from_weights is on", *_read(network, *names))


@idle
def dropouts_that_are_off(network: NetworkSettings) -> Iterator[Idle]:
    if not network.rank_dropout:
        yield Idle("rank_dropout is 0", *_read(network, "rank_dropout_scale", "bypass_mode"))
    elif network.dora_wd:
        yield Idle("dora_wd is on, which always works on outputs", *_read(network, "bypass_mode"))


@idle
def axis_without_dora(network: NetworkSettings) -> Iterator[Idle]:
    if not network.dora_wd:
        yield Idle("dora_wd is off", *_read(network, "wd_on_output"))


def _read(network: NetworkSettings, *names: str) -> list[str]:
    """Those that the LoRA type reads; of the others `unread_by_type` tells."""
    return [name for name in names if reads(network, name)]


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
