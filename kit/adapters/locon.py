"""LyCORIS' LoCon: LoRA with Tucker's core for kernels, a learned scalar, DoRA and its own dropouts.

Shapes: B batch, R rank, ... whatever lies between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from kit.adapters.dropout import SharedDropout
from kit.adapters.init import Start, uniform, zeros
from kit.adapters.lora import DOWN, UP
from kit.adapters.ops import AdaptedLayer, applied, lora_delta, pointwise, tucker, weight_shape
from kit.adapters.product import Product
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shape, Shapes

MID = "lora_mid.weight"


class Locon(Product):
    """LoCon beside one layer; what it computes is Lora's."""

    NEEDS = frozenset({UP, DOWN})
    MAY = frozenset({MID, "dora_scale"})
    FAST = (UP,)
    LINEAR = ((UP,),)

    def __init__(
        self,
        layer: AdaptedLayer,
        *,
        rank: int,
        alpha: float,
        use_tucker: bool = False,
        dora_wd: bool = False,
        wd_on_output: bool = False,
        bypass_mode: bool = False,
        rank_dropout: float = 0.0,
        found: Shapes | None = None,
        **options: Any,
    ) -> None:
        """bypass_mode: the rank dropout takes ranks, not outputs.

        found: the shapes of a file's tensors, which count more than rank and options.
        """
        shapes = found or lora_shapes.lora(
            weight_shape(layer),
            rank,
            use_tucker=use_tucker,
            dora_wd=dora_wd,
            wd_on_output=wd_on_output,
        )
        inner = bypass_mode and "dora_scale" not in shapes
        options["rank_dropout"] = 0.0 if inner else rank_dropout
        super().__init__(layer, shapes, rank=rank, alpha=alpha, **options)
        self.inner_dropout = SharedDropout(
            rank_dropout if inner else 0.0, rescaled=self.output_dropout.rescaled
        )

    @staticmethod
    def rank_of(shapes: Shapes) -> int:
        """The rank of a file's module."""
        return lora_shapes.side(shapes, DOWN)

    @classmethod
    def plain_shapes(cls, weight: Shape, found: Shapes) -> Shapes:
        """Down, up, and the core where the file has one."""
        return lora_shapes.lora(weight, cls.rank_of(found), use_tucker=MID in found)

    def starts(self) -> Mapping[str, Start]:
        """Up as zeros, unless a scalar of 0 stands before it."""
        up = zeros if self.scalar is None else uniform
        return {UP: up, MID: uniform, DOWN: uniform}

    @property
    def draws(self) -> bool:
        """The forward pass draws random numbers while training."""
        return super().draws or bool(self.inner_dropout)

    def product(self) -> Tensor:
        """Up times down, or the core between them."""
        up, down = self.part(UP), self.part(DOWN)
        if self.has(MID):
            return tucker(self.part(MID), up.flatten(1).T, down.flatten(1))
        return lora_delta(up, down, 1.0)

    def factored_change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """Down, through the core, and up."""
        layer = self.layer
        if self.has(MID):
            hidden = applied(layer, pointwise(layer, inputs, self.part(DOWN)), self.part(MID))
        else:
            hidden = applied(layer, inputs, self.part(DOWN))
        if self.training and self.inner_dropout:
            kept_R = self.inner_dropout.mask(self.rank, hidden)
            is_conv = isinstance(layer, nn.Conv2d)
            hidden = hidden * (kept_R[:, None, None] if is_conv else kept_R)
        change = pointwise(layer, hidden, self.part(UP)) * self.scale
        return change if self.scalar is None else change * self.scalar
