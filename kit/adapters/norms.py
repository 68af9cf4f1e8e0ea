"""The difference of a normalisation's weight and bias: LyCORIS' train_norm.

Shapes: C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from kit.adapters.base import Adapter
from kit.adapters.init import Start, zeros
from kit.adapters.ops import AdaptedLayer
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shapes

NormLayer = nn.GroupNorm | nn.LayerNorm


class Norm(Adapter):
    """Beside a group or layer normalisation; the file's names are w_norm and b_norm."""

    STARTS: ClassVar[Mapping[str, Start]] = {"w_norm": zeros, "b_norm": zeros}
    NEEDS = frozenset({"w_norm", "b_norm"})

    def __init__(self, layer: NormLayer, *, found: Shapes | None = None, **dropouts: Any) -> None:
        """There is no rank and no alpha."""
        shapes = found or lora_shapes.norm(_channels(layer))
        super().__init__(cast(AdaptedLayer, layer), shapes, **dropouts)

    @classmethod
    def kept_of(cls, layer: NormLayer, found: Shapes) -> Shapes:
        """Both differences."""
        return lora_shapes.matched(found, lora_shapes.norm(_channels(layer)))

    def delta(self) -> Tensor:
        """The difference of the weight."""
        return self.part("w_norm") * 1.0

    def delta_bias(self) -> Tensor | None:
        """The difference of the bias."""
        return self.part("b_norm") * 1.0

    def plain_change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """What the normalised inputs become by the differences alone, float32."""
        layer = cast(NormLayer, self.layer)
        values, weight, bias = inputs.float(), self.part("w_norm"), self.part("b_norm")
        with torch.autocast(inputs.device.type, enabled=False):
            if isinstance(layer, nn.GroupNorm):
                return functional.group_norm(values, layer.num_groups, weight, bias, layer.eps)
            shape = list(layer.normalized_shape)
            return functional.layer_norm(values, shape, weight, bias, layer.eps)

    def channels(self) -> int:
        """How many outputs there are."""
        return self.part("w_norm").numel()

    def per_channel(self, values_C: Tensor, change: Tensor) -> Tensor:
        """A group normalisation has its channels second, a layer normalisation last."""
        if isinstance(cast(NormLayer, self.layer), nn.GroupNorm):
            return values_C.reshape(-1, *[1] * (change.dim() - 2))
        return values_C

    def limit_norm(self, longest: float, length: float | None = None) -> tuple[float, bool]:
        """Never: the limit is for changes of layers that mix channels."""
        return self.length().item() if length is None else length, False


def _channels(layer: NormLayer) -> tuple[int, ...]:
    return (layer.num_channels,) if isinstance(layer, nn.GroupNorm) else tuple(layer.weight.shape)
