"""The base of every LoRA type: a place beside one layer, a start, a change, a file's names.

A type brings its formula (`change` of the layer's output, `delta` of its weight) and the names of
its tensors; hooks, skipped modules, norms and files are the same for all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import Parameter, functional

from kit.catalog.lora_shapes import Shapes
from kit.randomness import seed_for

AdaptedLayer = nn.Linear | nn.Conv2d
Start = Callable[[Tensor, torch.Generator], Tensor]


class Adapter(nn.Module, ABC):
    """The learned change of one frozen layer; float32 whatever the layer's precision."""

    # The roles of a file's module that this type reads: these, and at will those.
    NEEDS: ClassVar[frozenset[str]] = frozenset()
    MAY: ClassVar[frozenset[str]] = frozenset()

    multiplier: float = 1.0  # 1 as trained, 0 not at all
    module_dropout: float = 0.0

    @classmethod
    def reads(cls, shapes: Shapes) -> bool:
        """A file's module with these roles is of this type."""
        return bool(shapes) and cls.NEEDS <= shapes.keys() <= cls.NEEDS | cls.MAY

    @staticmethod
    def rank_of(shapes: Shapes) -> int:
        """The rank of a file's module; 0 for types without one.

        Raises: ValueError where its tensors have none.
        """
        return 0

    @classmethod
    @abstractmethod
    def kept_of(cls, layer: Any, found: Shapes) -> Shapes:
        """The shapes in which this type keeps a file's module beside the layer.

        Raises: ValueError where the module does not fit the layer.
        """

    @staticmethod
    def options_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """What a file's module decides beside shapes, rank and alpha.

        Raises: ValueError where that cannot be read.
        """
        return {}

    @property
    def draws(self) -> bool:
        """The forward pass draws random numbers while training."""
        return bool(self.module_dropout)

    @abstractmethod
    def start(self, *address: int | str) -> None:
        """Draw the first weights for this address; untrained, the layer is not changed."""

    @abstractmethod
    def change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """The change of the layer's output, at this multiplier, dropouts included."""

    @abstractmethod
    def delta(self) -> Tensor:
        """The change of the layer's weight at multiplier 1, float32, in the weight's shape."""

    def delta_bias(self) -> Tensor | None:
        """The change of the layer's bias at multiplier 1, for types that change it."""
        return None

    @abstractmethod
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Start from a file's tensors by role, so that the layer changes as it did there.

        Raises: ValueError where they do not fit.
        """

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of it, by role, such as `lora_up.weight`."""
        return self.state_dict()

    def unsaid(self) -> dict[str, float]:
        """What its tensors do not say in a file, by name, and going on from there needs."""
        return {}

    def learning(self) -> tuple[Parameter, ...]:
        """The weights that may learn; what is not among them stays as it started."""
        return tuple(self.parameters())

    def fast(self) -> tuple[Parameter, ...]:
        """Of two factors the one that starts as zeros, whose rate LoRA+ raises; else nothing.

        Source: LoRA+, Hayou et al. 2024, https://arxiv.org/abs/2402.12354.
        """
        return ()

    def add_to(self, _layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """The layer's forward hook: its output with the change added."""
        if self.multiplier == 0 or (
            self.training and self.module_dropout and torch.rand(()).item() < self.module_dropout
        ):
            return output
        return output + self.change(inputs[0], output).to(output.dtype)

    def length(self) -> float:
        """How long the change of the weight is (Frobenius norm)."""
        return self.delta().norm().item()

    @torch.no_grad()
    def limit_norm(self, longest: float) -> tuple[float, bool]:
        """Scale the weights so that the change is no longer than `longest`.

        Returns the norm afterwards and whether it was scaled. Source: max-norm regularisation,
        https://github.com/kohya-ss/sd-scripts/pull/545 (behaviour).
        """
        length = self.length()
        if length <= longest:
            return length, False
        self.shrink(longest / length)
        return longest, True

    def shrink(self, share: float) -> None:
        """Scale the change to this share of itself; types that cannot are never asked."""
        raise NotImplementedError


def zeros(weight: Tensor, _generator: torch.Generator) -> Tensor:
    """A start that changes nothing."""
    return torch.zeros(weight.shape)


def ones(weight: Tensor, _generator: torch.Generator) -> Tensor:
    """A start of factors that change nothing."""
    return torch.ones(weight.shape)


def uniform(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Within 1 / sqrt(inputs): Kaiming's uniform rule with a = sqrt(5) (He et al. 2015).

    torch's own rule for linear layers, and the reference's for the down part.
    """
    bound = 1 / math.sqrt(weight[0].numel())
    return (torch.rand(weight.shape, generator=generator) * 2 - 1) * bound


def normal(spread: float) -> Start:
    """Normally distributed around 0."""

    def start(weight: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(weight.shape, generator=generator) * spread

    return start


def number_in(tensors: Mapping[str, Tensor], role: str, otherwise: float = 0.0) -> float:
    """The one number that a file's tensor holds, such as alpha; what stands for a missing one.

    Raises: ValueError where it holds more, or nothing finite.
    """
    if role not in tensors:
        return otherwise
    tensor = tensors[role]
    if tensor.numel() != 1:
        raise ValueError(f"{role} has the shape {tuple(tensor.shape)}, and is one number")
    number = float(tensor.float())
    if not math.isfinite(number):
        raise ValueError(f"{role} is {number}")
    return number


@torch.no_grad()
def begin(weight: Tensor, rule: Start, *address: int | str) -> None:
    """Fill a weight by a rule; the same address gives the same numbers."""
    weight.copy_(rule(weight, torch.Generator().manual_seed(seed_for(*address))))


def weight_shape(layer: AdaptedLayer) -> tuple[int, ...]:
    """The shape of a layer's weight, also where the weight itself is stored otherwise."""
    if isinstance(layer, nn.Conv2d):
        inside = layer.in_channels // layer.groups
        return (layer.out_channels, inside, *layer.kernel_size)
    return (layer.out_features, layer.in_features)


def applied(layer: AdaptedLayer, inputs: Tensor, weight: Tensor, **changes: Any) -> Tensor:
    """Another weight, without bias, used as the layer uses its own.

    changes: what a convolution does otherwise, such as stride=1.
    """
    inputs, weight = _alike(inputs, weight)
    if not isinstance(layer, nn.Conv2d):
        return functional.linear(inputs, weight)
    usual = {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
    return functional.conv2d(inputs, weight, None, **cast(Any, usual | changes))


def pointwise(layer: AdaptedLayer, inputs: Tensor, weight: Tensor) -> Tensor:
    """A weight that mixes channels at each place alone: a linear layer or a 1x1 convolution."""
    if isinstance(layer, nn.Conv2d):
        weight = weight.reshape(*weight.shape[:2], 1, 1)
        return applied(layer, inputs, weight, stride=1, padding=0, dilation=1, groups=1)
    return applied(layer, inputs, weight)


def _alike(inputs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """In one precision: that of autocast, which chooses itself, else 32 bits."""
    if torch.is_autocast_enabled(inputs.device.type):
        return inputs, weight
    return inputs.float(), weight.float()


def without_bias(layer: AdaptedLayer, output: Tensor) -> Tensor:
    """What the layer's weight made of its inputs, float32."""
    if layer.bias is None:
        return output.float()
    return output.float() - per_output(layer, layer.bias.float())


def per_output(layer: AdaptedLayer, values_O: Tensor) -> Tensor:
    """One value for each output, in a shape that multiplies the layer's output."""
    values_O = values_O.reshape(-1)
    return values_O[:, None, None] if isinstance(layer, nn.Conv2d) else values_O
