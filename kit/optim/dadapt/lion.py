"""Lion with D-Adaptation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from kit.optim.dadapt.base import DAdapting, Group, State, by_products, check_count, dot, summed


class DAdaptLion(DAdapting):
    """Lion (Chen et al. 2023, https://arxiv.org/abs/2302.06675) with D-Adaptation."""

    zeros = ("s", "exp_avg")
    decouples = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        decouple: bool = True,
        d0: float = 1e-6,
    ) -> None:
        """decouple: always on, as in dadaptation; advice for Adam names it, so it may be said."""
        check_count(betas, 2)
        if not decouple:
            raise ValueError("decouple is always True: Lion decays weights beside the step")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "d0": d0})

    def _gather(
        self, weight: Tensor, grad: Tensor, state: State, group: Group, size: float
    ) -> tuple[Tensor, ...]:
        beta1, beta2 = group["betas"]
        beta, s = math.sqrt(beta2), state["s"]
        update = state["exp_avg"].mul(beta1).add_(grad, alpha=1 - beta1).sign_()
        # Now, not in _move: the step does not wait for d, and then nothing has to be kept for it.
        weight.mul_(1 - size * group["weight_decay"]).add_(update, alpha=-size)
        state["exp_avg"].mul_(beta2).add_(grad, alpha=(1 - beta2) * size)
        product = dot(update, s)
        s.mul_(beta).add_(update, alpha=(1 - beta) * size)
        return product, summed(s.abs())

    def _guess(self, first: Group, sums: list[float], size: float) -> tuple[float, Group] | None:
        return by_products(first, sums, size, math.sqrt(first["betas"][1]))

    def _move(self, weight: Tensor, state: State, group: Group, size: float) -> None:
        """Done in `_gather`."""
