"""Schedule-free optimizers learn one set of weights and recommend another: their average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from kit.optim.optimization import Optimization


@contextmanager
def averaged(optimization: Optimization) -> Iterator[None]:
    """Inside the block the weights are what a schedule-free optimizer recommends: their average.

    Afterwards they are what they were, to the last bit: turning an average back rounds, and a run
    must not depend on how often it was looked at.
    """
    optimizer: Any = optimization.optimizer
    if not averages(optimizer):
        yield
        return
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    learnt = [weight.detach().clone() for weight in weights]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for weight, kept in zip(weights, learnt, strict=True):
                weight.copy_(kept)


def averages(optimizer: Any) -> bool:
    """The optimizer learns one set of weights and recommends another (Defazio et al. 2024)."""
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper has both, always
    return hasattr(inner, "train") and hasattr(inner, "eval")
