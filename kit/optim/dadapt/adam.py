"""Adam with D-Adaptation, and as its first preprint had it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from kit.optim.dadapt.base import (
    DAdapting,
    Group,
    Optimization,
    State,
    by_lengths,
    by_products,
    check_count,
    dot,
    lengths,
    root_of,
    summed,
)


class _Adam(DAdapting):
    """Adam's move; the moments already hold the step size."""

    def __init__(self, params: Iterable[Any], given: dict[str, Any]) -> None:
        check_count(given["betas"], 2)
        super().__init__(params, given)

    def _move(self, weight: Tensor, state: State, group: Group, size: float) -> None:
        if group["decouple"] and group["weight_decay"]:
            weight.add_(weight, alpha=-group["weight_decay"] * size)
        weight.addcdiv_(state["exp_avg"], root_of(state, group), value=-1)


class DAdaptAdam(_Adam):
    """Adam with D-Adaptation."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decouple: bool = False,
        use_bias_correction: bool = False,
        d0: float = 1e-6,
        growth_rate: float = float("inf"),
    ) -> None:
        """decouple: decay weights beside the step (AdamW), not by the gradient."""
        given = {"lr": lr, "betas": betas, "eps": eps, "d0": d0, "growth_rate": growth_rate}
        given |= {"weight_decay": weight_decay, "decouple": decouple}
        super().__init__(params, {**given, "use_bias_correction": use_bias_correction})

    def _size(self, first: Group, rate: float, learning: Optimization) -> float:
        size, step = super()._size(first, rate, learning), first["k"] + 1
        if not first["use_bias_correction"]:
            return size
        beta1, beta2 = first["betas"]
        return size * math.sqrt(1 - beta2**step) / (1 - beta1**step)

    def _gather(
        self, weight: Tensor, grad: Tensor, state: State, group: Group, size: float
    ) -> tuple[Tensor, ...]:
        s, beta = state["s"], math.sqrt(group["betas"][1])
        product = dot(grad, s / root_of(state, group))
        beta1, beta2 = group["betas"]
        state["exp_avg"].mul_(beta1).add_(grad, alpha=size * (1 - beta1))
        state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        s.mul_(beta).add_(grad, alpha=size * (1 - beta))
        return product, summed(s.abs())

    def _guess(self, first: Group, sums: list[float], size: float) -> tuple[float, Group] | None:
        return by_products(first, sums, size, math.sqrt(first["betas"][1]))


class DAdaptAdamPreprint(_Adam):
    """Adam with D-Adaptation as its first preprint had it."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decouple: bool = False,
        d0: float = 1e-6,
        growth_rate: float = float("inf"),
    ) -> None:
        """decouple: decay weights beside the step (AdamW), not by the gradient."""
        given = {"lr": lr, "betas": betas, "eps": eps, "d0": d0, "growth_rate": growth_rate}
        super().__init__(params, {**given, "weight_decay": weight_decay, "decouple": decouple})

    def _gather(
        self, weight: Tensor, grad: Tensor, state: State, group: Group, size: float
    ) -> tuple[Tensor, ...]:
        beta1, beta2 = group["betas"]
        state["exp_avg"].mul_(beta1).add_(grad, alpha=size * (1 - beta1))
        # No addcmul: its last bit differs, and 60 steps of a growing d make 1e-3 of it.
        state["exp_avg_sq"].mul_(beta2).add_(grad * grad, alpha=1 - beta2)
        return lengths(grad, state, group, size, beta2)

    def _guess(self, first: Group, sums: list[float], size: float) -> tuple[float, Group] | None:
        return by_lengths(first, sums, size, first["betas"][1])
