"""Training steps made of their parts, without a plan: a network, an optimizer, an objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator

from kit.adapters.network import Network, attach
from kit.adapters.param_groups import PartRates
from kit.catalog.lr_schedules import ScheduleParams
from kit.devices import DTYPES, make_accelerator
from kit.diffusion.losses import make_objective
from kit.families import Family
from kit.families.text import TextConditioner
from kit.optim.making import build_optimization
from kit.settings import NetworkSettings, Noise
from kit.training.copies import copies_for
from kit.training.step import TrainingStep


def make_step(
    family: Family,
    network: NetworkSettings,
    rates: Mapping[str, float],
    *,
    accelerator: Accelerator | None = None,
    noise: Noise | None = None,
    max_grad_norm: float = 1.0,
    seed: int = 1,
    **optimizer: Any,
) -> tuple[TrainingStep, Network]:
    """The product's own step, and the network that it moves.

    rates: of each part, those of 0 are frozen; optimizer: other arguments of build_optimization
    than AdamW at a constant rate.
    """
    accelerator = accelerator or make_accelerator(torch.device("cpu"), "no")
    learns = frozenset(part for part, rate in rates.items() if rate > 0)
    attached = attach(network, family, learns=learns, seed=seed).train()
    plain: dict[str, Any] = {
        "optimizer_type": "AdamW",
        "optimizer_args": "",
        "lr_scheduler": "constant",
        "schedule_params": ScheduleParams(1000),
    }
    groups = attached.groups(PartRates(dict(rates)))
    optimization = build_optimization(groups, device=accelerator.device, **plain | optimizer)
    optimization.optimizer = accelerator.prepare_optimizer(optimization.optimizer)
    dtype = DTYPES[accelerator.mixed_precision]
    step = TrainingStep(
        accelerator,
        TextConditioner(family),
        optimization,
        make_objective(
            noise or Noise(),
            predicts=family.predicts,
            zero_terminal_snr=family.zero_terminal_snr,
            device=accelerator.device,
        ),
        max_grad_norm=max_grad_norm,
        copies=copies_for(attached, optimization.optimizer, family, dtype),
    )
    return step, attached
