"""GLoRA: a low-rank matrix that the layer's weight is multiplied with, and one that is added.

Shapes: O outputs, I inputs, R rank, K kernel side.
Source: Chavan et al. 2023, https://arxiv.org/abs/2306.07967, eq. 10 with its A and B of low rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from kit.adapters.base import Adapter
from kit.adapters.init import Start, uniform, zeros
from kit.adapters.ops import AdaptedLayer, applied, lora_delta, pointwise, weight_shape
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shapes


def glora_delta(weight: Tensor, a1_IR: Tensor, a2_RI: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    """The learned change, without alpha: W A1 A2 + B1 B2; weight is O I or O I K K."""
    turned = torch.einsum("oi..., ir, rj -> oj...", weight, a1_IR, a2_RI)
    return turned + lora_delta(b1, b2, 1.0)


class Glora(Adapter):
    """GLoRA beside one layer."""

    STARTS: ClassVar[Mapping[str, Start]] = {
        "a1.weight": uniform,
        "a2.weight": zeros,
        "b1.weight": uniform,
        "b2.weight": zeros,
    }
    NEEDS = frozenset(STARTS)
    FAST = ("a2.weight", "b2.weight")
    LINEAR = (("a2.weight",), ("b2.weight",))

    def __init__(
        self,
        layer: AdaptedLayer,
        *,
        rank: int,
        alpha: float,
        rs_lora: bool = False,
        found: Shapes | None = None,
        **dropouts: Any,
    ) -> None:
        """found: the shapes of a file's tensors, which count more than the rank."""
        super().__init__(layer, found or lora_shapes.glora(weight_shape(layer), rank), **dropouts)
        self.set_alpha(rank, alpha, rs_lora=rs_lora)

    @staticmethod
    def rank_of(shapes: Shapes) -> int:
        """The rank of a file's module."""
        return lora_shapes.side(shapes, "a2.weight")

    @classmethod
    def kept_of(cls, layer: Any, found: Shapes) -> Shapes:
        """Both pairs, as many ranks as in the file."""
        own = lora_shapes.glora(weight_shape(layer), cls.rank_of(found))
        return lora_shapes.matched(found, own)

    def delta(self) -> Tensor:
        """The change of the weight."""
        a1, a2 = self.part("a1.weight").flatten(1), self.part("a2.weight").flatten(1)
        b1, b2 = self.part("b1.weight"), self.part("b2.weight")
        return glora_delta(self.base_weight(), a1, a2, b1, b2) * self.scale

    def plain_change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """Inputs turned by A go through the layer's own weight once more; B stands beside it."""
        layer = self.layer
        turned = pointwise(layer, inputs, self.part("a2.weight"))
        turned = pointwise(layer, turned, self.part("a1.weight"))
        by_a = applied(layer, turned, layer.weight)
        by_b = pointwise(
            layer, applied(layer, inputs, self.part("b2.weight")), self.part("b1.weight")
        )
        return (by_a + by_b) * self.scale
