"""The network, its optimizer and its scheduler, made from a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from kit import catalog
from kit.adapters.network import Network, attach, parts_of
from kit.adapters.param_groups import Group, PartRates
from kit.adapters.restoring import as_trained
from kit.devices import DTYPES
from kit.errors import SettingsError
from kit.families import Family
from kit.families.placing import placed
from kit.lorafile import tensors
from kit.optim.making import Optimization, build_optimization
from kit.planning import Plan
from kit.settings import Blocks, Settings
from kit.settings.effective import encoder_learns, full_precision, part_rates, plus_ratios
from kit.settings.unet_blocks import BlockPlan, block_plan


def attached_network(plan: Plan, family: Family) -> Network:
    """The network beside the family's layers, as the plan's settings ask for it.

    Raises: LoraFileError where network_weights does not fit.
    """
    settings = plan.settings.network
    asked = part_rates(plan.settings.basic, plan.settings.rates)
    learns = frozenset(part for part in parts_of(family) if asked[part] > 0)
    start = None
    if settings.network_weights:
        path = Path(settings.network_weights.strip()).expanduser()
        file = tensors.read_lora(path)
        wants_parts = settings.dim_from_weights or settings.use_tucker
        start = placed(as_trained(file.tensors, file.metadata, tucker=wants_parts), family)
    network = attach(
        settings,
        family,
        learns=learns,
        seed=plan.seed,
        start=start,
        blocks=_blocks(plan.settings.blocks, family),
    )
    if half := full_precision(plan.settings.memory):
        for weight in network.parameters():  # not the alphas, which are told exactly
            weight.data = weight.data.to(DTYPES[half])
    return network


def _blocks(blocks: Blocks, family: Family) -> BlockPlan:
    return block_plan(blocks, catalog.FAMILIES[family.key].blocks)


def recompute_gradients(settings: Settings, family: Family) -> None:
    """Recompute instead of remembering, where it is asked for."""
    if not settings.memory.gradient_checkpointing:
        return
    unet: Any = family.unet
    unet.enable_gradient_checkpointing()
    unet.train()  # recomputes in training mode only; the model holds no dropouts
    if encoder_learns(settings.basic, settings.rates):
        for encoder in family.text_encoders:
            _recompute(encoder)


def _recompute(encoder: nn.Module) -> None:
    text: Any = encoder
    # transformers renamed it in 5.2x; both ends of the supported range are served.
    name = "activation_checkpointing_enable"
    enable = getattr(text, name, None) or text.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    text.train()


def make_optimization(
    plan: Plan, family: Family, network: Network, device: torch.device
) -> Optimization:
    """Optimizer and schedule over the network's groups.

    Raises: SettingsError for arguments that the optimizer does not know, and where nothing would
    learn; MissingPackage.
    """
    settings = plan.settings
    rates = PartRates(
        part_rates(settings.basic, settings.rates),
        _blocks(settings.blocks, family),
        plus_ratios(settings.rates),
    )
    groups = network.groups(rates)
    _check_learns(plan, groups)
    return build_optimization(groups, device=device, **_asked_for(plan))


def _check_learns(plan: Plan, groups: tuple[Group, ...]) -> None:
    """Some weights learn, and to the end: which blocks hold adapters, only the model shows."""
    if not groups:
        raise SettingsError(
            [
                "[blocks] block_dims and LR weights: they leave no block that has an adapter, and "
                "nothing else learns; give one of them a rank and a weight"
            ]
        )
    stop = plan.text_encoder_stop
    if 0 < stop < plan.total_steps and not any(g.name.startswith("unet") for g in groups):
        raise SettingsError(
            [
                f"[rates] stop_text_encoder_training: no block of the U-Net learns, so after step "
                f"{stop} nothing would; set it to 0, or give a block a rank and a weight"
            ]
        )


def check_optimizer(plan: Plan) -> None:
    """Build optimizer and schedule for weights of one number: refuses before a model is loaded.

    Raises: as make_optimization.
    """
    groups = [
        Group(name, rate, (nn.Parameter(torch.zeros(1)),))
        for name, rate in part_rates(plan.settings.basic, plan.settings.rates).items()
        if rate > 0
    ]
    build_optimization(groups, device=torch.device("cpu"), **_asked_for(plan))


def _asked_for(plan: Plan) -> dict[str, Any]:
    """Optimizer and schedule as make_optimization is told."""
    basic = plan.settings.basic
    return {
        "optimizer_type": basic.optimizer_type,
        "optimizer_args": basic.optimizer_args,
        "lr_scheduler": basic.lr_scheduler,
        "schedule_params": plan.schedule_params,
        "lr_scheduler_type": basic.lr_scheduler_type,
        "lr_scheduler_args": basic.lr_scheduler_args,
    }
