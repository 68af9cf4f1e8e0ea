"""Optimizers that estimate their own step size, where no kept package has them right.

D-Adaptation multiplies the rate with d, a lower bound of the distance to the solution that grows
while gradients agree (Defazio and Mishchenko 2023, https://arxiv.org/abs/2301.07733). Below are its
first Adam (what sd-scripts calls DAdaptation and DAdaptAdamPreprint) and Adan (Xie et al. 2022,
https://arxiv.org/abs/2208.06677) with two estimators of d. pytorch-optimizer's DAdaptAdan takes the
fourth power of the gradient for its square and diverges.

All groups learn at the first one's rate and d.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

_State = dict[str, Any]


class _DAdapting(Optimizer):
    """The step that both share; a subclass gathers moments from a gradient and moves a weight."""

    uses_inner_products = False

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        for name in ("lr", "eps", "d0", "growth_rate"):
            if not defaults[name] > 0:
                raise ValueError(f"{name} must be more than 0, not {defaults[name]}")
        if not all(0 <= beta < 1 for beta in defaults["betas"]):
            raise ValueError(f"betas must lie from 0 to below 1, not {defaults['betas']}")
        super().__init__(params, {**defaults, "d": defaults["d0"], "numerator": 0.0})

    def _gather(self, state: _State, group: dict[str, Any], grad: Tensor, step_size: float) -> None:
        raise NotImplementedError

    def _move(self, weight: Tensor, state: _State, group: dict[str, Any], step_size: float) -> None:
        raise NotImplementedError

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every weight that has a gradient, with the d before this step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        first = self.param_groups[0]
        step_size = first["d"] * first["lr"]
        if not self._estimate(first, step_size):
            return loss  # at a rate of 0, or without gradients, nothing is known yet
        for group, weight in self._learning():
            self._move(weight, self.state[weight], group, step_size)
        return loss

    def _estimate(self, first: dict[str, Any], step_size: float) -> bool:
        """Take in the gradients and raise d; false where that says nothing.

        s, the weighted sum of gradients, and d's numerator are moving averages with the last beta.
        """
        beta = first["betas"][-1]
        sums = []
        for group, weight in self._learning():
            assert weight.grad is not None
            grad = weight.grad if self._decoupled(group) else self._decayed(weight, group)
            state = self._state_of(weight)
            root = state["exp_avg_sq"].sqrt().add_(group["eps"])
            inner = step_size * (grad * state["s"] / root).sum()
            self._gather(state, group, grad, step_size)
            state["s"].mul_(beta).add_(grad, alpha=step_size * (1 - beta))
            if not self.uses_inner_products:
                root = state["exp_avg_sq"].sqrt().add_(group["eps"])
                inner = step_size**2 * (grad.square() / root).sum()
            lengths = (state["s"].square() / root).sum(), state["s"].abs().sum()
            sums.append(torch.stack([inner, *lengths]))
        if not sums:
            return False
        # Brought over once: reading a number waits for the device.
        numerator, weighted, length = torch.stack(sums).cpu().double().sum(0).tolist()
        if not length:
            return False
        numerator = beta * first["numerator"] + (1 - beta) * numerator
        if self.uses_inner_products:
            guess = 2 * beta / (1 - beta) * numerator / length
        else:
            guess = (weighted / (1 - beta) - numerator) / length
        if first["lr"] > 0 and math.isfinite(guess):
            largest = first["d"] * first["growth_rate"]
            first["d"] = max(first["d"], min(guess, largest))
        for group in self.param_groups:
            group["d"], group["numerator"] = first["d"], numerator
        return True

    def _learning(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    yield group, weight

    def _state_of(self, weight: Tensor) -> _State:
        state: _State = self.state[weight]
        if not state:
            state.update(
                {name: torch.zeros_like(weight) for name in ("s", "exp_avg", "exp_avg_sq")}
            )
        return state

    @staticmethod
    def _decoupled(group: dict[str, Any]) -> bool:
        return bool(group.get("decouple", True)) or not group["weight_decay"]

    @staticmethod
    def _decayed(weight: Tensor, group: dict[str, Any]) -> Tensor:
        """Weight decay as part of the gradient, which Adam then scales."""
        assert weight.grad is not None
        return weight.grad.add(weight, alpha=group["weight_decay"])


class DAdaptAdamPreprint(_DAdapting):
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
        _check_count(betas, 2)
        told = {"lr": lr, "betas": betas, "eps": eps, "d0": d0, "growth_rate": growth_rate}
        super().__init__(params, {**told, "weight_decay": weight_decay, "decouple": decouple})

    def _gather(self, state: _State, group: dict[str, Any], grad: Tensor, step_size: float) -> None:
        beta1, beta2 = group["betas"]
        state["exp_avg"].mul_(beta1).add_(grad, alpha=step_size * (1 - beta1))
        state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)

    def _move(self, weight: Tensor, state: _State, group: dict[str, Any], step_size: float) -> None:
        if group["decouple"]:
            weight.mul_(1 - step_size * group["weight_decay"])
        root = state["exp_avg_sq"].sqrt().add_(group["eps"])
        weight.addcdiv_(state["exp_avg"], root, value=-1)


class DAdaptAdan(_DAdapting):
    """Adan with D-Adaptation; its weights decay beside the step."""

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
        _check_count(betas, 3)
        told = {"lr": lr, "betas": betas, "eps": eps, "d0": d0, "growth_rate": growth_rate}
        super().__init__(params, {**told, "weight_decay": weight_decay, "no_prox": no_prox})

    def _state_of(self, weight: Tensor) -> _State:
        state = super()._state_of(weight)
        if "exp_avg_diff" not in state:
            assert weight.grad is not None
            state["exp_avg_diff"] = torch.zeros_like(weight)
            state["previous"] = weight.grad.clone()
        return state

    def _gather(self, state: _State, group: dict[str, Any], grad: Tensor, step_size: float) -> None:
        beta1, beta2, beta3 = group["betas"]
        change = grad - state["previous"]
        ahead = grad + beta2 * change
        state["exp_avg"].mul_(beta1).add_(grad, alpha=step_size * (1 - beta1))
        state["exp_avg_diff"].mul_(beta2).add_(change, alpha=step_size * (1 - beta2))
        state["exp_avg_sq"].mul_(beta3).addcmul_(ahead, ahead, value=1 - beta3)
        state["previous"].copy_(grad)

    def _move(self, weight: Tensor, state: _State, group: dict[str, Any], step_size: float) -> None:
        shrink = step_size * group["weight_decay"]
        if group["no_prox"]:
            weight.mul_(1 - shrink)
        ahead = state["exp_avg"] + group["betas"][1] * state["exp_avg_diff"]
        weight.addcdiv_(ahead, state["exp_avg_sq"].sqrt().add_(group["eps"]), value=-1)
        if not group["no_prox"]:
            weight.div_(1 + shrink)


class DAdaptAdanIP(DAdaptAdan):
    """Adan with D-Adaptation whose d follows inner products: a tighter bound, larger steps."""

    uses_inner_products = True


def _check_count(betas: tuple[float, ...], count: int) -> None:
    if len(betas) != count:
        raise ValueError(f"betas must be {count} numbers, not {betas}")
