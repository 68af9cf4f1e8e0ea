"""LyCORIS' LoCon: LoRA with Tucker's core for kernels, a learned scalar, DoRA and its own dropouts.

Shapes: B batch, R rank, ... whatever lies between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kit.adapters.base import (
    AdaptedLayer,
    Start,
    applied,
    pointwise,
    uniform,
    weight_shape,
    zeros,
)
from kit.adapters.formula import tucker
from kit.adapters.lora import DOWN, UP, lora_delta
from kit.adapters.product import Factored
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shape, Shapes

MID = "lora_mid.weight"


class Locon(Factored):
    """LoCon beside one layer; what it computes is Lora's."""

    STARTS: ClassVar[Mapping[str, Start]] = {
        UP: zeros,
        f"{UP} with scalar": uniform,
        MID: uniform,
        DOWN: uniform,
    }
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
        self.inner_dropout = rank_dropout if inner else 0.0

    @staticmethod
    def rank_of(shapes: Shapes) -> int:
        """The rank of a file's module."""
        return lora_shapes.side(shapes, DOWN)

    @classmethod
    def plain_shapes(cls, weight: Shape, found: Shapes) -> Shapes:
        """Down, up, and the core where the file has one."""
        return lora_shapes.lora(weight, cls.rank_of(found), use_tucker=MID in found)

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
            hidden = hidden * self._kept_ranks(hidden)
        change = pointwise(layer, hidden, self.part(UP)) * self.scale
        return change if self.scalar is None else change * self.scalar

    def _kept_ranks(self, hidden: Tensor) -> Tensor:
        ranks = self.rank
        kept_R = (torch.rand(ranks, device=hidden.device) > self.inner_dropout).to(hidden.dtype)
        if self.rank_dropout_scale:
            kept_R = kept_R / kept_R.mean().clamp(min=1 / ranks)
        return kept_R[:, None, None] if isinstance(self.layer, nn.Conv2d) else kept_R
