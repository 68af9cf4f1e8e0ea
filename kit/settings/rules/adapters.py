"""Rules about the LoRA type and the settings that only some types read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kit import catalog
from kit.catalog import lora_shapes
from kit.settings.targets import PRESETS, preset_of

if TYPE_CHECKING:
    from kit.settings import Settings

CONVOLUTIONS = ("conv_dim", "conv_alpha")
# Widths of layers in every Stable Diffusion: what divides these divides the others.
WIDTHS = {"unet": 320, "text encoder": 768}


def read_by_some() -> set[str]:
    """Settings that some LoRA types read and others do not."""
    rows: list[set[str]] = [set(row.uses) for row in catalog.LORA_TYPES.values()]
    return {name for row in rows for name in row if any(name not in other for other in rows)}


def _unit(settings: Settings) -> Iterator[str]:
    network = settings.network
    if "unit" not in catalog.LORA_TYPES[network.LoRA_type].uses or network.dim_from_weights:
        return
    for name, rank in (("network_dim", network.network_dim), ("conv_dim", network.conv_dim)):
        if rank and rank % network.unit:
            yield (
                f"[network] unit: {network.unit} does not divide {name} = {rank}; take a unit that "
                "does, e.g. 1"
            )


def _blocks_that_do_not_fit(settings: Settings) -> Iterator[str]:
    network = settings.network
    row = catalog.LORA_TYPES[network.LoRA_type]
    if not row.needs_even_blocks or network.dim_from_weights:
        return
    least = max(lora_shapes.butterfly_side(width) for width in WIDTHS.values())
    for name, rank in (("network_dim", network.network_dim), ("conv_dim", network.conv_dim)):
        if rank and rank < least:
            yield (
                f"[network] {name}: {network.LoRA_type} cannot divide layers of "
                f"{WIDTHS['unet']} outputs into blocks of {rank} or less; take {least} or more"
            )


def _preset(settings: Settings) -> Iterator[str]:
    network = settings.network
    if "LyCORIS_preset" not in catalog.LORA_TYPES[network.LoRA_type].uses:
        return
    try:
        preset_of(network.LyCORIS_preset)
    except ValueError as error:
        yield f"[network] LyCORIS_preset: {error}"


def _sides_of_a_preset(settings: Settings) -> Iterator[str]:
    network, changed = settings.network, settings.changed()
    uses = catalog.LORA_TYPES[network.LoRA_type].uses
    if "train_on_input" in uses and network.LyCORIS_preset in PRESETS:
        fixed = PRESETS[network.LyCORIS_preset].on_input is not None
        if fixed and "train_on_input" in changed:
            yield (
                f"train_on_input has no effect: LyCORIS_preset = {network.LyCORIS_preset} says for "
                "each layer which side is scaled"
            )


def _unread(settings: Settings) -> Iterator[str]:
    lora_type = settings.network.LoRA_type
    row, changed = catalog.LORA_TYPES[lora_type], settings.changed()
    for name in sorted(read_by_some() - set(row.uses)):
        if name not in changed:
            continue
        if name in CONVOLUTIONS and not row.adapts_convolutions:
            yield f"{name} has no effect: LoRA_type = {lora_type} adapts no 3x3 convolutions"
        else:
            yield f"{name} has no effect: LoRA_type = {lora_type} does not use it"


def _sizes_of_a_file(settings: Settings) -> Iterator[str]:
    if settings.network.dim_from_weights:
        yield "network_dim and network_alpha have no effect: dim_from_weights is on"


def _dropouts_that_are_off(settings: Settings) -> Iterator[str]:
    network = settings.network
    uses = catalog.LORA_TYPES[network.LoRA_type].uses
    if network.rank_dropout:
        if "bypass_mode" in uses and network.bypass_mode and network.dora_wd:
            yield "bypass_mode has no effect: dora_wd is on, which always works on outputs"
        return
    for name, is_on in (
        ("rank_dropout_scale", network.rank_dropout_scale),
        ("bypass_mode", network.bypass_mode),
    ):
        if is_on and name in uses:
            yield f"{name} has no effect: rank_dropout is 0"


def _axis_without_dora(settings: Settings) -> Iterator[str]:
    network = settings.network
    uses = catalog.LORA_TYPES[network.LoRA_type].uses
    if network.wd_on_output and "wd_on_output" in uses and not network.dora_wd:
        yield "wd_on_output has no effect: dora_wd is off"


def _in_bf16(settings: Settings) -> Iterator[str]:
    lora_type = settings.network.LoRA_type
    if settings.saving.save_precision == "bf16" and not catalog.LORA_TYPES[lora_type].is_plain_lora:
        yield (
            f"save_precision = bf16: A1111 takes the base model's layers in the precision of "
            f"a file of {lora_type}; in bf16 the change is a few percent off there (LoKr: 2.5 % in "
            "the median), with fp16 it is not"
        )


PROBLEMS = (_unit, _blocks_that_do_not_fit, _preset)
NOTICES = (
    _unread,
    _sides_of_a_preset,
    _sizes_of_a_file,
    _dropouts_that_are_off,
    _axis_without_dora,
    _in_bf16,
)
