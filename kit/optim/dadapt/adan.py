"""Adan with D-Adaptation, with two guesses of d."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from kit.optim.dadapt.base import (
    DAdapting,
    Group,
    State,
    by_lengths,
    check_count,
    dot,
    lengths,
    root_of,
)


class DAdaptAdan(DAdapting):
    """Adan (Xie et al. 2022, https://arxiv.org/abs/2208.06677) with D-Adaptation.

    Its weights decay beside the step. At a rate of 0 the squares are gathered, as in dadaptation.
    """

    zeros = ("s", "exp_avg", "exp_avg_sq", "exp_avg_diff")
    decouples = True
    gathers_at_rest = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.02,
        no_prox: bool = False,
        d0: float = 1e-6,
        growth_rate: float = float("inf"),
    ) -> None:
        """no_prox: decay before the step by a factor, not after it by a division."""
        check_count(betas, 3)
        given = {"lr": lr, "betas": betas, "eps": eps, "d0": d0, "growth_rate": growth_rate}
        super().__init__(params, {**given, "weight_decay": weight_decay, "no_prox": no_prox})

    def _gather(
        self, weight: Tensor, grad: Tensor, state: State, group: Group, size: float
    ) -> tuple[Tensor, ...]:
        if not state.get("moved", True) or "previous" not in state:
            # The first difference is that of the first two gradients which move the weight.
            state["previous"], state["moved"] = grad.clone(), False
        beta1, beta2, beta3 = group["betas"]
        change = grad - state["previous"]
        ahead = grad + beta2 * change
        product = self._product(grad, state, group, size)
        state["exp_avg"].mul_(beta1).add_(grad, alpha=size * (1 - beta1))
        state["exp_avg_diff"].mul_(beta2).add_(change, alpha=size * (1 - beta2))
        state["exp_avg_sq"].mul_(beta3).add_(ahead * ahead, alpha=1 - beta3)
        state["previous"].copy_(grad)
        found = lengths(grad, state, group, size, beta3)
        return found if product is None else (product, found[-1])

    def _product(self, grad: Tensor, state: State, group: Group, size: float) -> Tensor | None:
        return None

    def _guess(self, first: Group, sums: list[float], size: float) -> tuple[float, Group] | None:
        return by_lengths(first, sums, size, first["betas"][2])

    def _move(self, weight: Tensor, state: State, group: Group, size: float) -> None:
        state["moved"] = True
        shrink = size * group["weight_decay"]
        if group["no_prox"]:
            weight.mul_(1 - shrink)
        ahead = state["exp_avg"] + group["betas"][1] * state["exp_avg_diff"]
        weight.sub_(ahead.div_(root_of(state, group)))
        if not group["no_prox"]:
            weight.div_(1 + shrink)


class DAdaptAdanIP(DAdaptAdan):
    """Adan with D-Adaptation whose d follows inner products: a tighter bound, larger steps.

    dadaptation keeps the d that this one guesses in 32 bits, unlike its other classes. So does this
    one: the last bit of d grows to 1e-5 of the weights in 60 steps.
    """

    def _scaled(self, d: float, factor: float) -> Any:
        guessed = _single(d)
        return guessed * factor if float(guessed) == d else d * factor  # d0 was never guessed

    def _product(self, grad: Tensor, state: State, group: Group, size: float) -> Tensor | None:
        return dot(grad, state["s"] / root_of(state, group)) * size

    def _added(self, found: Tensor) -> list[float]:
        product = _single(0.0)
        for each in found[:, 0]:
            product = product + each
        return [float(product), *super()._added(found)[1:]]

    def _guess(self, first: Group, sums: list[float], size: float) -> tuple[float, Group] | None:
        (product, length), beta = sums, first["betas"][2]
        if not length:
            return None
        numerator = beta * _single(first["numerator"]) + (1 - beta) * _single(product)
        guess = 2 * (beta / (1 - beta)) * numerator / length
        return float(guess), {"numerator": float(numerator)}


def _single(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float32)
