"""Parameter groups: rates by part, by U-Net block, and LoRA+'s faster up parts.

The groups' names are those that the reference's users see in their logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch.nn import Parameter

from kit.adapters.base import Adapter
from kit.families import Layer, Norm
from kit.families.kohya_names import block_number
from kit.settings.unet_blocks import BlockPlan

PLUS = " plus"


@dataclass(frozen=True)
class Group:
    """Weights that share a learning rate; `name` is what loggers show."""

    name: str
    rate: float
    weights: tuple[Parameter, ...]
    # The same as they are to lie in a buffer, where that is another order: a state goes by theirs.
    in_memory: tuple[Parameter, ...] = ()


@dataclass(frozen=True)
class PartRates:
    """The rate of every part, and what makes single weights of it learn faster or slower.

    parts: by the layers' parts, "unet", "te", "te1", "te2". plus: LoRA+'s ratio (Hayou et al. 2024,
    https://arxiv.org/abs/2402.12354) for "unet" and "textencoder"; 0 is off.
    """

    parts: Mapping[str, float]
    blocks: BlockPlan = field(default_factory=BlockPlan)
    plus: Mapping[str, float] = field(default_factory=dict)

    def of(self, layer: Layer | Norm) -> tuple[str, float]:
        """The name of a layer's group, and its rate."""
        rate = self.parts[layer.part]
        if layer.part != "unet":
            return self._encoder_group(layer.part), rate
        block = block_number(layer.name)
        if self.blocks.weights is None or block is None:
            return "unet", rate
        return f"unet_block{block}", rate * self.blocks.weight(block)

    def _encoder_group(self, part: str) -> str:
        """One group for both encoders of SDXL while they learn alike."""
        alike = self.parts.get("te1") == self.parts.get("te2")
        return "textencoder" if alike or part == "te" else f"textencoder{part[-1]}"

    def ratio(self, layer: Layer | Norm) -> float:
        """How much faster the up part of a layer's adapter learns."""
        return self.plus.get("unet" if layer.part == "unet" else "textencoder", 0.0) or 1.0


def grouped(
    adapters: Iterable[tuple[str, Adapter]], layers: Mapping[str, Layer | Norm], rates: PartRates
) -> tuple[Group, ...]:
    """Text encoders first, then the U-Net, block by block; what has no rate is frozen."""
    found: dict[str, tuple[float, list[Parameter]]] = {}
    lies: dict[Parameter, tuple[float, ...]] = {}
    for name, adapter in adapters:
        group, rate = rates.of(layers[name])
        adapter.requires_grad_(False)
        ratio = rates.ratio(layers[name])
        fast = set(adapter.fast()) if ratio != 1 else set()
        for weight in adapter.learning():
            weight.requires_grad_(rate > 0)
            lies[weight] = adapter.lies(weight)
            if weight in fast:
                found.setdefault(group + PLUS, (rate * ratio, []))[1].append(weight)
            else:
                found.setdefault(group, (rate, []))[1].append(weight)
    rows = (
        Group(name, rate, tuple(weights), tuple(sorted(weights, key=lambda w: lies[w])))
        for name, (rate, weights) in found.items()
        if rate
    )
    return tuple(sorted(rows, key=_place))


def _place(group: Group) -> tuple[bool, int, str]:
    """Encoders, the U-Net, its blocks by number; each before its faster part."""
    plain = group.name.removesuffix(PLUS)
    number = plain.removeprefix("unet_block")
    is_unet = plain.startswith("unet")
    return is_unet, int(number) if number.isdigit() else -1, group.name
