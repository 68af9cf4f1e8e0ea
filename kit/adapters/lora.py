"""LoRA on linear layers and convolutions, with kohya's meaning of alpha and of the dropouts.

Shapes: B batch, O outputs, I inputs, R rank, K kernel side, ... whatever lies between.
Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685; on convolutions, LoCon in
https://github.com/KohakuBlueleaf/LyCORIS (idea), with the 3x3 kernel in the down part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import Parameter, functional

from kit.adapters.base import (
    AdaptedLayer,
    Adapter,
    Start,
    begin,
    normal,
    number_in,
    uniform,
    weight_shape,
)
from kit.adapters.formula import strength
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shapes

UP, DOWN = "lora_up.weight", "lora_down.weight"


def lora_delta(up: Tensor, down: Tensor, scale: float) -> Tensor:
    """The learned change of a weight: scale * up @ down (Hu et al. 2021, eq. 3).

    up: O R, or O R 1 1; down: R I, or R I K K. Returns O I, or O I K K.
    """
    change = up.flatten(1) @ down.flatten(1) * scale
    return change.reshape(up.shape[0], *down.shape[1:])


class Lora(Adapter):
    """The change of one layer: down to rank R, up again, scaled by alpha / R.

    Weights are float32 whatever the layer's precision. The up part starts as zeros, so an untrained
    adapter changes nothing.
    """

    NEEDS = frozenset({UP, DOWN})

    alpha: Tensor

    def __init__(
        self,
        layer: AdaptedLayer,
        *,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        rank_dropout: float = 0.0,
        module_dropout: float = 0.0,
        rs_lora: bool = False,
        found: Shapes | None = None,
    ) -> None:
        """An alpha of 0 means alpha = rank; the dropouts act while training only.

        rs_lora: the strength is alpha / sqrt(rank). found: the shapes of a file's tensors; the rank
        is theirs then.
        """
        super().__init__()
        self.rank, self.dropout = rank, dropout
        self.rank_dropout, self.module_dropout = rank_dropout, module_dropout
        self.scale, kept = strength(rank, alpha, rs_lora=rs_lora)
        self.register_buffer("alpha", torch.tensor(kept))
        self.lora_down: nn.Linear | nn.Conv2d
        self.lora_up: nn.Linear | nn.Conv2d
        if isinstance(layer, nn.Conv2d):
            kernel = (layer.kernel_size[0], layer.kernel_size[1])
            self.lora_down = nn.Conv2d(
                layer.in_channels,
                rank,
                kernel,
                (layer.stride[0], layer.stride[1]),
                cast("int | tuple[int, int]", layer.padding),
                (layer.dilation[0], layer.dilation[1]),
                bias=False,
            )
            self.lora_up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        else:
            self.lora_down = nn.Linear(layer.in_features, rank, bias=False)
            self.lora_up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.lora_up.weight)
        self.to(torch.float32)

    @staticmethod
    def rank_of(shapes: Shapes) -> int:
        """The rank of a file's module."""
        return lora_shapes.side(shapes, DOWN)

    @classmethod
    def kept_of(cls, layer: Any, found: Shapes) -> Shapes:
        """Down and up, as many ranks as in the file."""
        own = lora_shapes.lora(weight_shape(layer), cls.rank_of(found))
        return lora_shapes.matched(found, own)

    @property
    def draws(self) -> bool:
        """The forward pass draws random numbers while training."""
        return bool(self.dropout or self.rank_dropout or self.module_dropout)

    def start(self, *address: int | str) -> None:
        """The down part by the reference's rule, for this address; the up part is zeros."""
        begin(self.lora_down.weight, self.down_start(), *address)

    def down_start(self) -> Start:
        """How the down part starts."""
        return uniform

    def change(self, inputs: Tensor, _output: Tensor) -> Tensor:
        """The change of the layer's output."""
        change: Tensor = self(inputs)
        return change

    def forward(self, inputs: Tensor) -> Tensor:
        """The change of the layer's output, from its inputs alone."""
        return self.through(inputs, self.lora_up.weight, self.lora_down.weight)

    def through(self, inputs: Tensor, up: Tensor, down: Tensor) -> Tensor:
        """Down and up by these parts, with this adapter's strength and dropouts."""
        if not torch.is_autocast_enabled(inputs.device.type):
            inputs = inputs.to(down.dtype)
        hidden, scale = self._mixed(inputs, down), self.scale
        if self.training and self.dropout:
            hidden = functional.dropout(hidden, self.dropout)
        if self.training and self.rank_dropout:
            hidden = hidden * self._kept_ranks(hidden)
            scale /= 1 - self.rank_dropout  # what remains is strengthened, so the mean stays
        is_conv = isinstance(self.lora_up, nn.Conv2d)
        out = functional.conv2d(hidden, up) if is_conv else functional.linear(hidden, up)
        return out * (scale * self.multiplier)

    def _mixed(self, inputs: Tensor, down: Tensor) -> Tensor:
        like = self.lora_down
        if not isinstance(like, nn.Conv2d):
            return functional.linear(inputs, down)
        place = cast(Any, (like.stride, like.padding, like.dilation))
        return functional.conv2d(inputs, down, None, *place)

    def _kept_ranks(self, hidden: Tensor) -> Tensor:
        """Zeros and ones per sample and rank, in a shape that multiplies `hidden`."""
        is_conv = isinstance(self.lora_down, nn.Conv2d)
        ranks = hidden.shape[1 if is_conv else -1]
        kept_BR = torch.rand(hidden.shape[0], ranks, device=hidden.device) > self.rank_dropout
        between = (1,) * (hidden.dim() - 2)
        shape = (-1, ranks, *between) if is_conv else (-1, *between, ranks)
        return kept_BR.to(hidden.dtype).reshape(shape)

    def fast(self) -> tuple[Parameter, ...]:
        """The up part."""
        return tuple(self.lora_up.parameters())

    def delta(self) -> Tensor:
        """The change of the layer's weight at multiplier 1, float32, in the weight's shape."""
        return lora_delta(self.lora_up.weight.float(), self.lora_down.weight.float(), self.scale)

    def shrink(self, share: float) -> None:
        """Both parts alike."""
        self.lora_up.weight.mul_(share**0.5)
        self.lora_down.weight.mul_(share**0.5)

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """The file's strength is folded into the up part: this adapter keeps its own alpha."""
        found = {role: tuple(t.shape) for role, t in tensors.items() if role != "alpha"}
        if found.keys() == self.NEEDS and (rank := self.rank_of(found)) != self.rank:
            raise ValueError(f"rank {rank} in the file, {self.rank} here")
        own = self.lora_up.weight, self.lora_down.weight
        lora_shapes.matched(found, {UP: tuple(own[0].shape), DOWN: tuple(own[1].shape)})
        up, down = tensors[UP], tensors[DOWN]
        theirs = number_in(tensors, "alpha", self.rank) / self.rank
        own[1].copy_(down.reshape(own[1].shape))
        own[0].copy_(up.reshape(own[0].shape).float() * (theirs / self.scale))


class LoraFa(Lora):
    """A LoRA whose down part stays as it was drawn: only the up part learns.

    Source: LoRA-FA, Zhang et al. 2023, https://arxiv.org/abs/2308.03303; the spread of the start is
    sd-scripts' networks/lora_fa.py's.
    """

    def down_start(self) -> Start:
        """Normally distributed, by inputs and rank (Glorot and Bengio 2010)."""
        inputs = self.lora_down.weight[0].numel()
        return normal((2 / (inputs + self.rank)) ** 0.5)

    def learning(self) -> tuple[Parameter, ...]:
        """The up part."""
        return self.fast()
