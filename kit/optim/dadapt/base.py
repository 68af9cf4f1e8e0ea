"""The base of all D-Adaptation optimizers: the step, two estimates of d, earlier states."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

Group = dict[str, Any]
State = dict[str, Any]
Optimization = list[tuple[Group, Tensor]]

# What states of earlier versions call the same numbers: those were pytorch-optimizer's classes.
_EARLIER = {
    "weight_decouple": "decouple",
    "bias_correction": "use_bias_correction",
    "numerator_weighted": "numerator",
    "gsq_weighted": "numerator",
    "sk_sq_weighted": "weighted",
    "sk_l1": "length",
    "step": "k",
}
_EARLIER_STATE = {"sk": "s", "alpha_k": "squares"}


class DAdapting(Optimizer):
    """The step that all share; a subclass takes in a gradient, guesses d and moves a weight."""

    zeros: tuple[str, ...] = ("s", "exp_avg", "exp_avg_sq")
    decouples = False  # where no argument says so: weight decay lies beside the gradient
    gathers_at_rest = False  # takes in gradients at a rate of 0, too

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        for name in ("lr", "eps", "d0", "growth_rate"):
            if not defaults.get(name, 1) > 0:
                raise ValueError(f"{name} must be more than 0, not {defaults[name]}")
        for name in ("betas", "momentum"):
            if not all(0 <= each < 1 for each in _numbers(defaults.get(name, ()))):
                raise ValueError(f"{name} must lie from 0 to below 1, not {defaults[name]}")
        found = {"d": defaults["d0"], "numerator": 0.0, "k": 0}
        super().__init__(params, {**defaults, **found})

    def _size(self, first: Group, rate: float, learning: Optimization) -> float:
        """The step size: d times the rate."""
        size: float = self._scaled(first["d"], rate)
        return size

    def _scaled(self, d: float, factor: float) -> Any:
        return d * factor

    def _gather(
        self, weight: Tensor, grad: Tensor, state: State, group: Group, size: float
    ) -> tuple[Tensor, ...]:
        """Take in a gradient; the sums over the weight that the guess needs."""
        raise NotImplementedError

    def _added(self, found: Tensor) -> list[float]:
        """The sums over all weights; found: one row per weight."""
        sums: list[float] = found.double().sum(0).tolist()
        return sums

    def _guess(self, first: Group, sums: list[float], size: float) -> tuple[float, Group] | None:
        """The new d and the numbers to keep; None where nothing is known yet."""
        raise NotImplementedError

    def _move(self, weight: Tensor, state: State, group: Group, size: float) -> None:
        raise NotImplementedError

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every weight that has a gradient, with the d before this step.

        Raises: ValueError where groups have different rates, other than 0.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rate = self._rate()
        learning = [
            (group, weight)
            for group in self.param_groups
            for weight in group["params"]
            if weight.grad is not None and group["lr"] >= rate
        ]
        first = self.param_groups[0]
        size = self._size(first, rate, learning)
        if not learning or not (size or self.gathers_at_rest) or not self._adapt(learning, size):
            return loss
        if rate:
            for group, weight in learning:
                self._move(weight, self.state[weight], group, size)
            for group in self.param_groups:
                group["k"] += 1
        return loss

    def _rate(self) -> float:
        rates = {float(group["lr"]) for group in self.param_groups} - {0.0}
        if len(rates) > 1:
            raise ValueError(f"all groups learn at one rate, not at {sorted(rates)}")
        return max(rates, default=0.0)

    def _adapt(self, learning: Optimization, size: float) -> bool:
        """Take in the gradients and raise d; false where they say nothing yet."""
        gathered = [
            self._gather(weight, self._gradient(weight, group), self._state_of(weight), group, size)
            for group, weight in learning
        ]
        # Brought over once: reading a number waits for the device.
        sums = self._added(torch.stack([torch.stack(each) for each in gathered]).cpu())
        first = self.param_groups[0]
        guessed = self._guess(first, sums, size)
        if guessed is None:
            return False
        guess, kept = guessed
        if size and math.isfinite(guess):
            largest = float(self._scaled(first["d"], first.get("growth_rate", math.inf)))
            kept["d"] = max(first["d"], min(guess, largest))
        for group in self.param_groups:
            group.update(kept)
        return True

    def _gradient(self, weight: Tensor, group: Group) -> Tensor:
        """The gradient, with the weight decay in it unless that is decoupled."""
        assert weight.grad is not None
        if group.get("decouple", self.decouples) or not group["weight_decay"]:
            return weight.grad
        return weight.grad.add(weight, alpha=group["weight_decay"])

    def _state_of(self, weight: Tensor) -> State:
        state: State = self.state[weight]
        if not state:
            state.update({name: torch.zeros_like(weight) for name in self.zeros})
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state, of earlier versions too."""
        super().load_state_dict(
            {
                **state_dict,
                "state": {
                    key: {_EARLIER_STATE.get(name, name): value for name, value in state.items()}
                    for key, state in state_dict["state"].items()
                },
                "param_groups": [self._read(group) for group in state_dict["param_groups"]],
            }
        )

    def _read(self, group: Group) -> Group:
        known = {**self.defaults, **group}
        for earlier, name in _EARLIER.items():
            value = known.pop(earlier, None)
            if value is not None and name in self.defaults and name not in group:
                # One number for all weights; some kept it as a tensor of one.
                known[name] = float(value) if isinstance(value, Tensor) else value
        return known


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def dot(one: Tensor, other: Tensor) -> Tensor:
    """The inner product in 32 bits."""
    return torch.dot(one.flatten().float(), other.flatten().float())


def summed(values: Tensor) -> Tensor:
    """The sum in 32 bits."""
    return values.sum(dtype=torch.float32)


def root_of(state: State, group: Group) -> Tensor:
    """Adam's denominator."""
    return state["exp_avg_sq"].sqrt().add_(group["eps"])


def by_products(
    first: Group, sums: list[float], size: float, beta: float
) -> tuple[float, Group] | None:
    """D from the products of gradients with s, their weighted sum so far."""
    product, length = sums
    if not length:
        return None
    numerator = beta * first["numerator"] + (1 - beta) * size * product
    return numerator / ((1 - beta) * length), {"numerator": numerator}


def by_lengths(
    first: Group, sums: list[float], size: float, beta: float
) -> tuple[float, Group] | None:
    """D from the length of s, less what gradients without any direction would make of it."""
    squares, weighted, length = sums
    if not length:
        return None
    numerator = beta * first["numerator"] + squares * size**2 * (1 - beta)
    return (weighted / (1 - beta) - numerator) / length, {"numerator": numerator}


def lengths(
    grad: Tensor, state: State, group: Group, size: float, beta: float
) -> tuple[Tensor, ...]:
    """Take a gradient into s; the sums that `by_lengths` asks for."""
    root, s = root_of(state, group), state["s"]
    s.mul_(beta).add_(grad, alpha=size * (1 - beta))
    return summed(grad * grad / root), summed(s * s / root), summed(s.abs())


def check_count(betas: tuple[float, ...], count: int) -> None:
    """Raises: ValueError where the betas are not so many."""
    if len(betas) != count:
        raise ValueError(f"betas must be {count} numbers, not {betas}")
