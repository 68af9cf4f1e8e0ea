"""AdamW over buffers, with step and rate on the device: it reads nothing back, and can be captured.

`step` is the whole of it. A step that is recorded once and replayed has two parts: `write_rates`,
which is not recorded, and `move`, which sees addresses alone.

On CUDA one fused kernel moves a group. Elsewhere `move` has the formula and the order of torch's
AdamW for single tensors, so in 32 bits the numbers are torch's to the last bit.
Source: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from kit.optim.flat import Flat, Run

# What torch has where nobody has chosen the kernels.
_UNCHOSEN = {"foreach": None, "fused": None, "capturable": False, "differentiable": False}


class FlatAdamW(Flat, AdamW):
    """AdamW whose weights lie flat."""

    def lay_flat(self, elementwise: frozenset[str]) -> None:
        """Let the weights move into buffers; the rates get addresses."""
        super().lay_flat(elementwise)
        self._device = self.buffers.weights.device
        self.fuses = self._device.type == "cuda"
        # torch's fused kernel takes a rate in 32 bits; its formula for single weights has 64.
        dtype = torch.float32 if self.fuses else torch.float64
        self._rates = torch.zeros(len(self.param_groups), dtype=dtype, device=self._device)

    def step(self, closure: Any = None) -> Any:
        """Move every weight that has a gradient."""
        chosen = any(
            group[name] is not plain
            for group in self.param_groups
            for name, plain in _UNCHOSEN.items()
        )
        if not self.fuses or chosen:
            return super().step(closure)  # fewer calls; the numbers are the same
        self.write_rates()
        self.move()
        return None

    @torch.no_grad()
    def write_rates(self) -> None:
        """Bring the rates that the groups have now to the device, where `move` finds them."""
        for number, group in enumerate(self.param_groups):
            self._rates[number].fill_(float(group["lr"]))

    @torch.no_grad()
    def move(self, skip: Tensor | None = None) -> None:
        """Move every weight that has a gradient, at the rates that were written.

        skip: one number in 32 bits on the device; 1 leaves all as it is, the count of steps too.
        """
        self.collect()
        for number, group in enumerate(self.param_groups):
            runs = [run for run in self.runs if run.group == number]
            for run in runs:
                self._begin(run, group)
            if runs and self.fuses:
                self._move_fused(runs, group, self._rates[number], skip)
                continue
            for run in runs:
                self._move_plainly(run, group, self._rates[number], skip)

    def _begin(self, run: Run, group: dict[str, Any]) -> None:
        """Averages of a run that has none yet, and its count of steps on the device."""
        state = self._run_state[run.weight]
        if not state:
            names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")[: 2 + group["amsgrad"]]
            state["step"] = torch.zeros((), device=self._device)
            state |= {name: torch.zeros_like(run.weight) for name in names}
        state["step"] = state["step"].to(self._device, torch.float32)
        self._show(run)

    def _move_fused(
        self, runs: list[Run], group: dict[str, Any], rate: Tensor, skip: Tensor | None
    ) -> None:
        states = [self._run_state[run.weight] for run in runs]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            [run.weight for run in runs],
            [_gradient(run) for run in runs],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else [],
            steps,
            amsgrad=group["amsgrad"],
            lr=rate,
            beta1=float(group["betas"][0]),
            beta2=float(group["betas"][1]),
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
            grad_scale=None,
            found_inf=skip,
        )
        if skip is not None:
            torch._foreach_sub_(steps, [skip.reshape(())] * len(steps))

    def _move_plainly(
        self, run: Run, group: dict[str, Any], rate: Tensor, skip: Tensor | None
    ) -> None:
        state, weight, (beta1, beta2) = self._run_state[run.weight], run.weight, group["betas"]
        changed = [weight, *(value for name, value in state.items())]
        before = [] if skip is None else [value.clone() for value in changed]
        gradient = -_gradient(run) if group["maximize"] else _gradient(run)
        step, mean, square = state["step"].add_(1), state["exp_avg"], state["exp_avg_sq"]
        if group["weight_decay"]:
            weight.mul_(1 - rate * group["weight_decay"])
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        if group["amsgrad"]:
            square = torch.maximum(state["max_exp_avg_sq"], square, out=state["max_exp_avg_sq"])
        count = step.double()
        size, root = rate / (1 - beta1**count), (1 - beta2**count).sqrt()
        divisor = (square.sqrt() / root).add_(group["eps"])
        weight.add_((mean * -size).div_(divisor))
        if skip is not None:
            for value, kept in zip(changed, before, strict=True):
                value.copy_(torch.where(skip.reshape(()).bool(), kept, value))


def _gradient(run: Run) -> Tensor:
    assert run.weight.grad is not None
    return run.weight.grad
