"""The network, its optimizer and its LR schedule, as the settings ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from kit.adapters.network import Network, attach, parts_of
from kit.adapters.param_groups import Group, PartRates
from kit.adapters.restoring import as_trained
from kit.catalog.lr_schedules import ScheduleParams
from kit.devices import DTYPES
from kit.errors import SettingsError
from kit.families import Family
from kit.families.placing import placed
from kit.lorafile import tensors
from kit.optim.making import build_optimization
from kit.optim.optimization import Optimization
from kit.optim.trial import try_out
from kit.reading.paths import path_of
from kit.settings import Basic, NetworkSettings
from kit.settings.unet_blocks import BlockPlan


def attached_network(
    network: NetworkSettings,
    family: Family,
    rates: Mapping[str, float],
    blocks: BlockPlan,
    *,
    seed: int,
    full_precision: str = "",
) -> Network:
    """The network beside the family's layers, as the settings ask for it.

    rates: of each part, those of 0 stay frozen; full_precision: what its own weights are kept in,
    "fp16", "bf16", or "" for float32.

    Raises: LoraFileError where network_weights does not fit.
    """
    start = None
    if network.network_weights:
        path = path_of(network.network_weights.strip(), "network_weights")
        file = tensors.read_lora(path)
        wants_parts = network.dim_from_weights or network.use_tucker
        start = placed(as_trained(file.tensors, file.metadata, tucker=wants_parts), family)
    learns = frozenset(part for part in parts_of(family) if rates[part] > 0)
    attached = attach(network, family, learns=learns, seed=seed, start=start, blocks=blocks)
    if full_precision:
        for weight in attached.parameters():  # not the alphas, which are told exactly
            weight.data = weight.data.to(DTYPES[full_precision])
    return attached


def recompute_gradients(family: Family, *, text_encoders: bool, draws: bool) -> None:
    """Recompute activations instead of remembering them; in text encoders where they learn.

    draws: adapters draw random numbers, which must be the same ones again. Without that, their
    state is not read and set, which a CUDA graph could not do.
    """
    unet: Any = family.unet
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=draws)
    unet.enable_gradient_checkpointing(lambda module, *inputs: again(module.__call__, *inputs))
    unet.train()  # recomputes in training mode only; the model holds no dropouts
    if text_encoders:
        for encoder in family.text_encoders:
            _recompute(encoder, draws=draws)


def _recompute(encoder: nn.Module, *, draws: bool) -> None:
    text: Any = encoder
    # transformers renamed it in 5.2x; both ends of the supported range are served.
    name = "activation_checkpointing_enable"
    enable = getattr(text, name, None) or text.gradient_checkpointing_enable
    enable({"use_reentrant": False, "preserve_rng_state": draws})
    text.train()


def make_optimization(
    network: Network,
    rates: PartRates,
    options: Mapping[str, Any],
    device: torch.device,
    *,
    text_encoder_stop: int = 0,
    before: Mapping[str, Any] | None = None,
) -> Optimization:
    """Optimizer and schedule over the network's groups; options: those of `optimizer_options`.

    text_encoder_stop: the last step in which text encoders learn, 0 where they learn to the end.
    before: of a state that it will go on from, those of `made_before`.

    Raises: SettingsError for arguments that the optimizer does not know, and where nothing would
    learn; MissingPackage; OutputError where what the state was made with cannot run here.
    """
    groups = network.groups(rates)
    _check_learns(groups, text_encoder_stop)
    return build_optimization(
        groups, device=device, flat=not network.skips, **options, **(before or {})
    )


def _check_learns(groups: tuple[Group, ...], stop: int) -> None:
    """Some weights learn, and to the end: which blocks hold adapters, only the model shows."""
    if not groups:
        raise SettingsError(
            [
                "[blocks] block_dims and LR weights: they leave no block that has an adapter, and "
                "nothing else learns; give one of them a rank and a weight"
            ]
        )
    if stop and not any(group.name.startswith("unet") for group in groups):
        raise SettingsError(
            [
                f"[rates] stop_text_encoder_training: no block of the U-Net learns, so after step "
                f"{stop} nothing would; set it to 0, or give a block a rank and a weight"
            ]
        )


def check_optimizer(rates: Mapping[str, float], options: Mapping[str, Any]) -> None:
    """Build optimizer and schedule for a few numbers and try them, before a model is loaded.

    Raises: as make_optimization.
    """
    groups = [
        Group(name, rate, (nn.Parameter(torch.zeros(2, 2)),))
        for name, rate in rates.items()
        if rate > 0
    ]
    optimization = build_optimization(groups, device=torch.device("cpu"), **options)
    # The schedules of the menu are our own; of a class anywhere, any step may be the first to fail.
    total = options["schedule_params"].total if options["lr_scheduler_type"] else 0
    try_out(optimization, total)


def optimizer_options(basic: Basic, schedule_params: ScheduleParams) -> dict[str, Any]:
    """Optimizer and schedule as build_optimization is told."""
    return {
        "optimizer_type": basic.optimizer_type,
        "optimizer_args": basic.optimizer_args,
        "lr_scheduler": basic.lr_scheduler,
        "schedule_params": schedule_params,
        "lr_scheduler_type": basic.lr_scheduler_type,
        "lr_scheduler_args": basic.lr_scheduler_args,
    }
