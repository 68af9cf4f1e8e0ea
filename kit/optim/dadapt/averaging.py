"""AdaGrad and SGD with D-Adaptation, by dual averaging."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from kit.optim.dadapt.base import DAdapting, Group, Optimization, State, dot, summed


class _FromStart(DAdapting):
    """The step of dual averaging: from where the weight began, by all gradients so far."""

    zeros = ("s",)

    def _state_of(self, weight: Tensor) -> State:
        state = super()._state_of(weight)
        if "x0" not in state:
            state["x0"] = weight.detach().clone()
        return state

    def _way(self, state: State, group: Group) -> Tensor:
        return state["s"]

    def _move(self, weight: Tensor, state: State, group: Group, size: float) -> None:
        goal, keep = state["x0"] - self._way(state, group), group["momentum"]
        weight.mul_(keep).add_(goal, alpha=1 - keep) if keep else weight.copy_(goal)


class DAdaptAdaGrad(_FromStart):
    """AdaGrad with D-Adaptation. At a rate of 0 the squares are gathered, as in dadaptation."""

    gathers_at_rest = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        eps: float = 1e-6,
        d0: float = 1e-6,
        growth_rate: float = float("inf"),
    ) -> None:
        """weight_decay: by the gradient; the step leaves no weight that could decay beside it."""
        given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eps": eps}
        given |= {"d0": d0, "growth_rate": growth_rate, "weighted": 0.0, "length": 0.0}
        super().__init__(params, given)

    def _state_of(self, weight: Tensor) -> State:
        state = super()._state_of(weight)
        if "squares" not in state:
            state["squares"] = torch.full_like(weight, 1e-6)
        return state

    def _way(self, state: State, group: Group) -> Tensor:
        return state["s"] / (state["squares"].sqrt() + group["eps"])

    def _gather(
        self, weight: Tensor, grad: Tensor, state: State, group: Group, size: float
    ) -> tuple[Tensor, ...]:
        s, eps = state["s"], group["eps"]
        before = summed(s * s / (state["squares"].sqrt() + eps)), summed(s.abs())
        state["squares"].add_(grad * grad)
        root = state["squares"].sqrt() + eps
        s.add_(grad, alpha=size)
        return summed(grad * grad / root), summed(s * s / root), summed(s.abs()), *before

    def _guess(self, first: Group, sums: list[float], size: float) -> tuple[float, Group] | None:
        squares, weighted, length, weighted_before, length_before = sums
        weighted += first["weighted"] - weighted_before
        length += first["length"] - length_before
        numerator = first["numerator"] + size**2 * squares
        if not length:
            return None
        kept = {"numerator": numerator, "weighted": weighted, "length": length}
        return (weighted - numerator) / length, kept


class DAdaptSGD(_FromStart):
    """SGD with D-Adaptation."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        d0: float = 1e-6,
        growth_rate: float = float("inf"),
    ) -> None:
        """weight_decay: by the gradient; the step leaves no weight that could decay beside it."""
        given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "d0": d0}
        super().__init__(params, {**given, "growth_rate": growth_rate, "g0_norm": 0.0})

    def _size(self, first: Group, rate: float, learning: Optimization) -> float:
        """In units of the first gradient's length, without weight decay, as in dadaptation."""
        if rate and not first["g0_norm"]:
            squares = [summed(w.grad * w.grad) for _, w in learning if w.grad is not None]
            total = float(torch.stack(squares).cpu().double().sum()) if squares else 0.0
            for group in self.param_groups:
                group["g0_norm"] = math.sqrt(total)
        norm = first["g0_norm"]
        return super()._size(first, rate, learning) / norm if norm else 0.0

    def _gather(
        self, weight: Tensor, grad: Tensor, state: State, group: Group, size: float
    ) -> tuple[Tensor, ...]:
        s = state["s"]
        product = dot(grad, s)
        s.add_(grad, alpha=size)
        return product, summed(s * s)

    def _guess(self, first: Group, sums: list[float], size: float) -> tuple[float, Group] | None:
        product, squares = sums
        if not squares:
            return None
        numerator = first["numerator"] + size * product
        return 2 * numerator / math.sqrt(squares), {"numerator": numerator}
