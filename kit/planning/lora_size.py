"""The size of a LoRA, before torch or the base model is loaded.

Of each full-size family the layers that adapters may sit beside are listed in
`kit/basemodel/layers.json`, by shape: part, in a transformer block or not, side of the kernel (0:
linear), inputs, outputs, and how many there are; its normalisations by block, channels and number.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

from kit import catalog
from kit.basemodel import ModelFile
from kit.basemodel.claims import claimed_family
from kit.basemodel.preflight import found_model
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shapes
from kit.reading.texts import read_json
from kit.settings import NetworkSettings, Settings
from kit.settings.effective import part_rates, reads
from kit.settings.targets import CONVOLUTIONS, ENCODERS, PRESETS, TRANSFORMER
from kit.settings.unet_blocks import uses_blocks

LAYERS = Path(__file__).parents[1] / "basemodel" / "layers.json"
BYTES = {"float": 4, "fp16": 2, "bf16": 2}
BYTES_PER_TENSOR = 130  # of a safetensors header: name, type, shape and place


@dataclass(frozen=True)
class NetworkSize:
    """What would be trained and saved."""

    layers: int
    weights: int  # without alphas
    bytes: int  # of the LoRA file, about
    more: int = 0  # of these, because something is stored as more than is trained

    def __str__(self) -> str:
        """In a few words."""
        size = f"{self.bytes / 1e6:.0f}" if self.bytes >= 1e7 else f"{self.bytes / 1e6:.1f}"
        return f"{self.layers} layers, {self.weights:,} weights, about {size} MB"


@dataclass(frozen=True)
class LayerShape:
    """Equal layers of a base model."""

    part: str  # "unet", "te", "te1" or "te2"
    in_transformer: bool
    kernel: int  # 0: linear
    inputs: int
    outputs: int
    count: int


@cache
def layer_shapes(family: str) -> tuple[LayerShape, ...]:
    """The layers of a full-size model; family: the catalog's key."""
    rows = read_json(LAYERS)[family]
    return tuple(LayerShape(*row) for row in rows)


def network_size(settings: Settings, family: str) -> NetworkSize | None:
    """The size with these settings; None where a file or single blocks decide it."""
    if settings.network.dim_from_weights or uses_blocks(settings.blocks):
        return None
    if _needs_names(settings):
        return None
    chosen = list(_sized(settings, layer_shapes(family)))
    layers = sum(shape.count for shape, _ in chosen)
    try:
        kept = [(_tensors(settings, shape, rank), shape.count) for shape, rank in chosen]
    except ValueError:
        return None  # a rank that does not fit, which the run's start will tell
    norms = list(_norms(settings, family))
    layers += sum(count for _, _, count in norms)
    weights = sum(2 * channels * count for _, channels, count in norms)
    weights += sum(_numbers(found) * count for found, count in kept)
    stored = [(lora_shapes.written(found), count) for found, count in kept]
    one = BYTES[settings.saving.save_precision]
    alphas = layers * one + sum(count for _, count in kept) * BYTES_PER_TENSOR
    norms_bytes = sum(2 * channels * count for _, channels, count in norms) * one
    file, trained = (_bytes(shapes, one) for shapes in (stored, kept))
    return NetworkSize(layers, weights, file + alphas + norms_bytes, file - trained)


def stored_otherwise(settings: Settings) -> Iterator[str]:
    """That Tucker's parts of LoKr are stored as one factor, and how much larger the file is."""
    network = settings.network
    code = catalog.LORA_TYPES[network.LoRA_type].code
    if not (network.use_tucker and code.endswith(":Lokr")) or network.dim_from_weights:
        return
    model = settings.model
    file = found_model(model.pretrained_model_name_or_path)
    found = file.family if isinstance(file, ModelFile) else ""
    size = network_size(settings, found or claimed_family(v2=model.v2, sdxl=model.sdxl))
    if size is None or size.more:
        much = (
            f", about {size.more / 1e6:.3g} MB larger ({size.bytes / 1e6:.3g} MB)" if size else ""
        )
        yield (
            f"use_tucker: the file holds each lokr_w2 whole{much}, because Forge and ComfyUI do "
            "not read Tucker's parts of LoKr"
        )


def _bytes(kept: Collection[tuple[Shapes, int]], one: int) -> int:
    """Of tensors in a file; one: bytes of a number."""
    return sum((_numbers(s) * one + len(s) * BYTES_PER_TENSOR) * count for s, count in kept)


def _numbers(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _sized(settings: Settings, shapes: Collection[LayerShape]) -> Iterator[tuple[LayerShape, int]]:
    """The layers that get an adapter, each with its rank."""
    network, asked = settings.network, part_rates(settings.basic, settings.rates)
    everywhere = catalog.LORA_TYPES[network.LoRA_type].adapts_convolutions
    for shape in shapes:
        if (
            asked[shape.part] > 0
            and (shape.in_transformer or everywhere)
            and _taken(network, shape)
        ):
            small = shape.kernel < 3
            yield shape, network.network_dim if small else network.conv_dim or network.network_dim


def _norms(settings: Settings, family: str) -> Iterator[tuple[bool, int, int]]:
    """In a transformer block or not, channels and number of the normalisations that learn."""
    network = settings.network
    learns = part_rates(settings.basic, settings.rates)["unet"] > 0
    if not (reads(network, "train_norm") and network.train_norm and learns):
        return
    preset = PRESETS[network.LyCORIS_preset]
    for in_transformer, channels, count in read_json(LAYERS)[f"{family} norms"]:
        around = TRANSFORMER if in_transformer else CONVOLUTIONS
        if preset.takes("", around, is_unet=True, is_conv3x3=False):
            yield in_transformer, channels, count


def _needs_names(settings: Settings) -> bool:
    """The preset goes by names of layers, which are not listed here."""
    network = settings.network
    has_presets = reads(network, "LyCORIS_preset")
    preset = PRESETS.get(network.LyCORIS_preset)
    if preset is None or preset.unet_names:
        return has_presets
    listed = {*TRANSFORMER, *CONVOLUTIONS, *ENCODERS}
    return has_presets and not {*preset.unet, *preset.text_encoder} <= listed


def _taken(network: NetworkSettings, shape: LayerShape) -> bool:
    """The preset takes these layers."""
    if not reads(network, "LyCORIS_preset"):
        return True
    is_unet = shape.part == "unet"
    around = ENCODERS if not is_unet else TRANSFORMER if shape.in_transformer else CONVOLUTIONS
    preset = PRESETS[network.LyCORIS_preset]
    return preset.takes("", around, is_unet=is_unet, is_conv3x3=shape.kernel > 1)


def _tensors(settings: Settings, shape: LayerShape, rank: int) -> Shapes:
    """The shapes of what is kept beside one layer; every layer counts as one with a bias."""
    network = settings.network
    row = catalog.LORA_TYPES[network.LoRA_type]
    kernel = (shape.kernel, shape.kernel) if shape.kernel else ()
    shapes = catalog.load(row.shapes)
    taken = signature(shapes).parameters
    asked: dict[str, Any] = {n: getattr(network, n) for n in row.arguments if n in taken}
    found: Shapes = shapes((shape.outputs, shape.inputs, *kernel), rank, **asked)
    return {role: shape for role, shape in found.items() if shape}  # marks have no side
