"""LoRA on linear layers and convolutions, with kohya's meaning of alpha and of the dropouts.

Shapes: O outputs, I inputs, R rank, K kernel side.
Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685; on convolutions, LoCon in
https://github.com/KohakuBlueleaf/LyCORIS (idea), with the 3x3 kernel in the down part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import Parameter, functional

from kit.adapters.dropout import RankDropout
from kit.adapters.folded import Fold, beside, is_plain, whole_linear
from kit.adapters.init import Start, begin, normal, uniform, zeros
from kit.adapters.joined import Joined
from kit.adapters.ops import AdaptedLayer, lora_delta, weight_shape
from kit.adapters.product import Product
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shape, Shapes

UP, DOWN = "lora_up.weight", "lora_down.weight"


class Factor(nn.Module):
    """A weight in a module of its own, which a run's state calls `lora_up.weight`."""

    def __init__(self, weight: Parameter) -> None:
        super().__init__()
        self.weight: Tensor = weight


class Lora(Product):
    """The change of one layer: down to rank R, up again, scaled by alpha / R.

    Weights are float32 whatever the layer's precision. The up part starts as zeros, so an untrained
    adapter changes nothing. Dropouts are sd-scripts': both act between the parts.
    """

    STARTS: ClassVar[Mapping[str, Start]] = {DOWN: uniform, UP: zeros}
    NEEDS = frozenset({UP, DOWN})
    FAST = (UP,)
    LINEAR = ((UP,),)

    lora_down: Factor
    lora_up: Factor

    def __init__(
        self,
        layer: AdaptedLayer,
        *,
        rank: int,
        alpha: float,
        rank_dropout: float = 0.0,
        found: Shapes | None = None,
        **options: Any,
    ) -> None:
        """An alpha of 0 means alpha = rank; the dropouts act while training only.

        found: the shapes of a file's tensors; the rank is theirs then.
        """
        shapes = lora_shapes.lora(weight_shape(layer), rank)
        # A run's optimizer state goes by the weights' order: down first.
        ordered = {role: shapes[role] for role in (DOWN, UP)}
        super().__init__(layer, ordered, rank=rank, alpha=alpha, **options)
        self.rank_dropout = RankDropout(rank_dropout)
        self._fold: Fold | None = None
        self._joined: tuple[Joined, int] | None = None
        self.computes_as_base = False  # in the precision of the inputs, as autocast would

    @staticmethod
    def rank_of(shapes: Shapes) -> int:
        """The rank of a file's module."""
        return lora_shapes.side(shapes, DOWN)

    @classmethod
    def plain_shapes(cls, weight: Shape, found: Shapes) -> Shapes:
        """Down and up, as many ranks as in the file."""
        return lora_shapes.lora(weight, cls.rank_of(found))

    def add_part(self, role: str, weight: Parameter) -> None:
        """Each weight in a module of its own."""
        self.add_module(role.removesuffix(".weight"), Factor(weight))

    def part(self, role: str) -> Parameter:
        """A weight by its role, which is its name, too."""
        return self.get_parameter(role)

    def lies(self, weight: Parameter) -> tuple[float, ...]:
        """Downs before ups, by what their copies are multiplied with."""
        return (0, self.scale) if weight is self.part(DOWN) else (1,)

    @property
    def draws(self) -> bool:
        """The forward pass draws random numbers while training."""
        return super().draws or bool(self.rank_dropout)

    def start(self, *address: int | str) -> None:
        """The down part by the reference's rule, for this address; the up part is zeros."""
        begin(self.part(DOWN), self.starts()[DOWN], *address)

    def fold_with(self, fold: Fold) -> None:
        """Compute with the copies while they hold; a plain linear layer then computes with them."""
        self._fold, layer = fold, cast(Any, self.layer)
        if is_plain(layer):
            alone = layer.forward
            layer.forward = lambda inputs: self._whole(inputs) if self._folds() else alone(inputs)

    def join(self, joined: Joined, member: int) -> None:
        """Compute together with layers that read the same inputs; which of them this one is."""
        self._joined = joined, member

    def _whole(self, inputs: Tensor) -> Tensor:
        """What a plain linear layer gives, with its LoRA."""
        if self._joined is not None:
            joined, member = self._joined
            return joined.output(member, inputs)
        assert self._fold is not None
        return whole_linear(cast(nn.Linear, self.layer), inputs, self._fold)

    def unfold(self) -> None:
        """Compute with the weights themselves from now on."""
        self.computes_as_base = False
        if self._fold is not None:
            vars(self.layer).pop("forward", None)
            self._fold = self._joined = None

    def _folds(self) -> bool:
        return (
            self._fold is not None and self.training and self.multiplier == 1 and self._fold.is_on()
        )

    def add_to(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """The layer's forward hook: its output with the change added, unless it has it."""
        if not self._folds():
            return super().add_to(layer, inputs, output)
        assert self._fold is not None
        if is_plain(layer):
            return output
        return beside(self.layer, inputs[0], output, self._fold)

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
            if self.computes_as_base:
                up, down = up.to(inputs.dtype), down.to(inputs.dtype)
            else:  # over a base in 16 bits no small change is lost
                inputs = inputs.to(down.dtype)
        is_conv = isinstance(self.layer, nn.Conv2d)
        hidden, scale = self._mixed(inputs, down), self.scale
        if self.training and self.dropout:
            hidden = functional.dropout(hidden, self.dropout)
        if self.training and self.rank_dropout:
            hidden = hidden * self.rank_dropout.mask(hidden, is_conv=is_conv)
            scale /= 1 - self.rank_dropout.share  # what remains is strengthened: the mean stays
        out = functional.conv2d(hidden, up) if is_conv else functional.linear(hidden, up)
        return out * (scale * self.multiplier)

    def _mixed(self, inputs: Tensor, down: Tensor) -> Tensor:
        layer = self.layer
        if not isinstance(layer, nn.Conv2d):
            return functional.linear(inputs, down)
        place = cast(Any, (layer.stride, layer.padding, layer.dilation))
        return functional.conv2d(inputs, down, None, *place)

    def product(self) -> Tensor:
        """Up times down."""
        return lora_delta(self.part(UP).float(), self.part(DOWN).float(), 1.0)

    @torch.no_grad()
    def shrink(self, share: float) -> None:
        """Both parts alike."""
        self.part(UP).mul_(share**0.5)
        self.part(DOWN).mul_(share**0.5)

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """The file's strength is folded into the up part: this adapter keeps its own alpha.

        Raises: ValueError where the file's rank is another.
        """
        found = {role: tuple(t.shape) for role, t in tensors.items() if role != "alpha"}
        if found.keys() == self.NEEDS and (rank := self.rank_of(found)) != self.rank:
            raise ValueError(f"rank {rank} in the file, {self.rank} here")
        super().take(tensors)


class LoraFa(Lora):
    """A LoRA whose down part stays as it was drawn: only the up part learns.

    Source: LoRA-FA, Zhang et al. 2023, https://arxiv.org/abs/2308.03303; the spread of the start is
    sd-scripts' networks/lora_fa.py's.
    """

    def starts(self) -> Mapping[str, Start]:
        """The down part normally distributed, by inputs and rank (Glorot and Bengio 2010)."""
        inputs = self.part(DOWN)[0].numel()
        return {**self.STARTS, DOWN: normal((2 / (inputs + self.rank)) ** 0.5)}

    def learning(self) -> tuple[Parameter, ...]:
        """The up part."""
        return self.fast()
