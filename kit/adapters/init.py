"""How the weights of an adapter start: rules, and draws that depend on their address alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kit.randomness import seed_for

Start = Callable[[Tensor, torch.Generator], Tensor]


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


@torch.no_grad()
def begin(weight: Tensor, rule: Start, *address: int | str) -> None:
    """Fill a weight by a rule; the same address gives the same numbers."""
    weight.copy_(rule(weight, torch.Generator().manual_seed(seed_for(*address))))
