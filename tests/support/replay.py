"""Recorded trainings of the reference, fed to the product batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kit import planning
from kit.adapters.network import Network
from kit.optim.learning_rates import effective_rates_of
from kit.settings import Settings
from kit.training.batches import Batch
from kit.training.preparation import Resources, prepare
from kit.training.step import TrainingStep, run_step
from tests.support.parity import arrays
from tests.support.parts import outcome


@dataclass(frozen=True)
class Replayed:
    """What a replay came to."""

    losses: list[float]  # of every batch
    rates: list[dict[str, float]]  # of every step, by group
    norms: list[float]  # of every step's gradient, before it is clipped
    error: float  # relative L2 of the whole update


def prepared(settings: Settings) -> Resources:
    """A run's resources, ready to learn."""
    ready, _ = outcome(prepare(planning.plan(settings)))
    return ready


def recorded(inputs: Mapping[str, Tensor], number: int) -> Batch:
    """A batch as it was recorded: latents, noise, timesteps, tokens, weights, masks."""

    def found(name: str) -> Any:
        return inputs.get(f"{name}_{number}")

    t_B, noise, seen, masks = (found(n) for n in ("timesteps", "noise", "noise_seen", "masks"))
    weights, token_weights = found("loss_weights"), found("token_weights")
    second = found("input_ids2")
    latents = found("latents")
    return Batch(
        latents_BChw=latents,
        noise_BChw=noise,
        perturbation_BChw=None if seen is None else seen - noise,
        t_B=t_B,
        weight_B=torch.ones(len(t_B)) if weights is None else weights,
        mask_B1hw=None if masks is None else _averaged(masks, latents.shape[2:]),
        tokens=(found("input_ids"),) if second is None else (found("input_ids"), second),
        token_weights=None if token_weights is None else (token_weights,),
        text_embeds=None,
        crops_B6=found("time_ids"),
        micro_step=number,
    )


def _averaged(masks_BHW: Tensor, sides: torch.Size) -> Tensor:
    """Masks of pixels, averaged down to the latent's size."""
    return torch.nn.functional.interpolate(masks_BHW[:, None], size=tuple(sides), mode="area")


def replay_run(ready: Resources, case: str, count: int) -> Replayed:
    """Feed the first `count` recorded batches to a prepared run, as its settings gather them."""
    gathered = ready.plan.settings.basic.gradient_accumulation_steps
    step, network = ready.training_step, ready.network
    return replay(step, network, case, count, gathered=gathered, begin=ready.begin)


def replay(
    step: TrainingStep,
    network: Network,
    case: str,
    count: int,
    *,
    gathered: int = 1,
    begin: Callable[[int], dict[str, float]] | None = None,
) -> Replayed:
    """Feed the first `count` recorded batches, `gathered` in each optimizer step.

    begin: makes ready for a step (from 1), and tells the rates of its groups.
    """
    lora, inputs = arrays(f"{case}_lora"), arrays(f"{case}_batches")
    start = {key.removeprefix("init/"): value for key, value in lora.items() if "init/" in key}
    own = network.tensors()
    assert {key: tuple(value.shape) for key, value in own.items()} == {
        key: tuple(value.shape) for key, value in start.items()
    }
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(start[key])  # the same memory as the network's own weights
    losses, rates, norms = [], [], []
    for number, first in enumerate(range(0, count, gathered), 1):
        window = range(first, min(first + gathered, count))
        rates.append(begin(number) if begin else effective_rates_of(step.optimization))
        result = run_step(step, (recorded(inputs, i) for i in window), count=len(window))
        losses += result.losses
        norms.append(result.norm)
    return Replayed(losses, rates, norms, _update_error(network, lora, start))


def _update_error(
    network: Network, lora: Mapping[str, Tensor], start: Mapping[str, Tensor]
) -> float:
    error = size = 0.0
    for key, value in network.tensors().items():
        if key.endswith(".alpha"):
            continue
        stored = lora.get(f"final/{key}")
        update = (lora[f"delta/{key}"] if stored is None else stored - start[key]).double()
        error += (value.double() - start[key].double() - update).square().sum().item()
        size += update.square().sum().item()
    return (error / size) ** 0.5
