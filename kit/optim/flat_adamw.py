"""AdamW over buffers: on CUDA one fused kernel moves a group; elsewhere torch's own code does.

The kernel keeps the count of steps on the device, so nothing is read back.
Source: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import AdamW

from kit.optim.flat import Flat, Run

# What torch has where nobody has chosen the kernels.
_UNCHOSEN = {"foreach": None, "fused": None, "capturable": False, "differentiable": False}


class FlatAdamW(Flat, AdamW):
    """AdamW whose weights lie flat."""

    def lay_flat(
        self, elementwise: frozenset[str], groups: Sequence[Sequence[Parameter]] = ()
    ) -> None:
        """See Flat."""
        super().lay_flat(elementwise, groups)
        self.fuses = self.buffers.weights.device.type == "cuda"

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move every weight that has a gradient."""
        chosen = any(
            group[name] is not plain
            for group in self.param_groups
            for name, plain in _UNCHOSEN.items()
        )
        if not self.fuses or chosen:
            return super().step(closure)
        self.collect()
        for number, group in enumerate(self.param_groups):
            if runs := [run for run in self.runs if run.group == number]:
                self._move(runs, group)
        return None

    def _move(self, runs: list[Run], group: dict[str, Any]) -> None:
        states = [self._begun(run, group) for run in runs]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            [run.weight for run in runs],
            [self.buffers.gradients[run.inside] for run in runs],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else [],
            steps,
            amsgrad=group["amsgrad"],
            lr=float(group["lr"]),
            beta1=float(group["betas"][0]),
            beta2=float(group["betas"][1]),
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )

    def _begun(self, run: Run, group: dict[str, Any]) -> dict[str, Any]:
        """A run's state: averages where it has none yet, its count of steps on the device."""
        state, device = self._run_state[run.weight], run.weight.device
        if not state:
            names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")[: 2 + group["amsgrad"]]
            state["step"] = torch.zeros((), device=device)
            state |= {name: torch.zeros_like(run.weight) for name in names}
        state["step"] = state["step"].to(device, torch.float32)
        self._show(run)
        return state
