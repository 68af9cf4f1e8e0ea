"""What every LoRA type has in common: a place beside one layer, a start, a change, a file's names.

A type brings the formula (`delta`, and `change` where that is cheaper than building the delta) and
the names of its tensors; hooks, dropouts of whole modules, files and groups are the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

AdaptedLayer = nn.Linear | nn.Conv2d


class Adapter(nn.Module, ABC):
    """The learned change of one frozen layer; float32 whatever the layer's precision."""

    multiplier: float = 1.0  # 1 as trained, 0 not at all
    module_dropout: float = 0.0

    @property
    def draws(self) -> bool:
        """The forward pass draws random numbers while training."""
        return bool(self.module_dropout)

    @abstractmethod
    def start(self, *address: int | str) -> None:
        """Draw the first weights for this address; untrained, the layer is not changed."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """The change of the layer's output."""

    @abstractmethod
    def delta(self) -> Tensor:
        """The change of the layer's weight at multiplier 1, float32, in the weight's shape."""

    @abstractmethod
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Start from a file's tensors by role, so that the layer changes as it did there.

        Raises: ValueError where they do not fit.
        """

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of it, by role, such as `lora_up.weight`."""
        return self.state_dict()

    def learning(self) -> tuple[Parameter, ...]:
        """The weights that may learn; what is not among them stays as it started."""
        return tuple(self.parameters())

    def fast(self) -> tuple[Parameter, ...]:
        """Those of `learning` that start as zeros and lie at the output: LoRA+ speeds these up.

        Source: LoRA+, Hayou et al. 2024, https://arxiv.org/abs/2402.12354.
        """
        return ()

    def add_to(self, _layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """The layer's forward hook: its output with the change added."""
        if self.multiplier == 0 or (
            self.training and self.module_dropout and torch.rand(()).item() < self.module_dropout
        ):
            return output
        return output + self(inputs[0]).to(output.dtype)

    @torch.no_grad()
    def limit_norm(self, longest: float) -> tuple[float, bool]:
        """Scale the weights so that the change is no longer than `longest` (Frobenius).

        Returns the norm afterwards and whether it was scaled. Source: max-norm regularisation,
        https://github.com/kohya-ss/sd-scripts/pull/545 (behaviour).
        """
        length = self.delta().norm().item()
        if length <= longest:
            return length, False
        self.shrink(longest / length)
        return longest, True

    def shrink(self, share: float) -> None:
        """Scale the change to this share of itself; types that cannot are never asked."""
        raise NotImplementedError
