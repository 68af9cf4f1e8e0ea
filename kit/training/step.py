"""A training step on tensors, numbers and callables: loss, backward, optimizer step.

    for batch in batches:
        loss_B = step.loss(batch)           # noise added, U-Net asked, error weighed
        step.backward(loss_B, count)        # gradient of the mean over all batches
    norm = step.optimizer_step()            # clip, optimizer, LR schedule, zero_grad, norm limit

The three are apart because graphs and several processes stand between them. Loss and backward read
no number back from the device, their shapes are the batch's, and what is fixed over a run was
decided before it. `run_step` is the whole of it, and reads the losses once all is queued.

Shapes: B batch, C latent channels, h w latent height and width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from kit.diffusion import noise as diffusion
from kit.diffusion.inpainting import unet_input
from kit.diffusion.losses import Objective, losses_by_band
from kit.families import Conditioning
from kit.families.text import TextConditioner
from kit.optim.learning_rates import at_requested_rates
from kit.optim.optimization import Optimization
from kit.randomness import seed_for
from kit.training.batches import Batch


@dataclass
class TrainingStep:
    """Moves the weights of a network that is attached to a base model."""

    accelerator: Accelerator  # device and autocast; scales the loss where gradients are fp16
    text: TextConditioner  # the base model, and how it reads captions
    optimization: Optimization
    objective: Objective
    max_grad_norm: float = math.inf
    max_weight_norm: float = 0.0  # 0: weights may grow
    limit_norms: Callable[[float], object] | None = None
    dropout_seed: int | None = None  # for networks that draw random numbers
    is_whole: bool = True  # no optimizer step was broken off

    def loss(self, batch: Batch) -> Tensor:
        """The denoising loss of each image of a batch, shape B: its weighted mean error.

        The batch lies on the device. Source: Ho et al. 2020, eq. 14.
        """
        objective, t_B = self.objective, batch.t_B
        latents, noise, zero = batch.latents_BChw, batch.noise_BChw, objective.zero_terminal_snr
        input_noise = noise if batch.perturbation_BChw is None else noise + batch.perturbation_BChw
        noisy = diffusion.add_noise(latents, input_noise, t_B, zero_terminal_snr=zero)
        model_input = unet_input(noisy, batch.inpaint_cond_B5hw)
        with self.accelerator.autocast():
            conditioning = self._conditioning(batch)
            prediction = self.text.family.predict(model_input, t_B, conditioning)
        target = diffusion.target(latents, noise, t_B, objective.predicts, zero_terminal_snr=zero)
        loss_B = objective.losses(prediction, target, t_B, mask_B1hw=batch.mask_B1hw)
        return loss_B * batch.weight_B * objective.weight_T[t_B]

    def backward(self, loss_B: Tensor, count: int) -> None:
        """Add the gradient of a batch's mean loss, of which a step gathers `count`."""
        self.accelerator.backward(loss_B.mean() / count)

    def optimizer_step(self) -> Tensor:
        """Move the weights along the gradient, and forget it; returns its norm before clipping."""
        norm = self.clip()
        self.is_whole = False
        optimizer = self.optimization.optimizer
        with at_requested_rates(optimizer):
            optimizer.step()
        if not getattr(optimizer, "step_was_skipped", False):  # fp16: the scaler met an overflow
            self.optimization.scheduler.step()
        self.zero_grad()
        if self.limit_norms and self.max_weight_norm:
            self.limit_norms(self.max_weight_norm)
        self.is_whole = True
        return norm

    def clip(self) -> Tensor:
        """Shorten the gradient to max_grad_norm; returns its norm before."""
        weights = [p for g in self.optimization.optimizer.param_groups for p in g["params"]]
        norm: Tensor | None = self.accelerator.clip_grad_norm_(weights, self.max_grad_norm)
        return torch.zeros(()) if norm is None else norm

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.optimization.optimizer.zero_grad(set_to_none=True)

    def own_rng(self, micro_step: int) -> AbstractContextManager[None]:
        """For networks with dropouts: random numbers that belong to this micro-step alone."""
        if self.dropout_seed is None:
            return nullcontext()
        seed = seed_for(self.dropout_seed, "dropout", micro_step)
        return seeded_rng(self.accelerator.device, seed)

    def _conditioning(self, batch: Batch) -> Conditioning:
        text_embeds = batch.text_embeds
        if text_embeds is None:
            assert batch.tokens is not None
            text_embeds = self.text.encode(batch.tokens, batch.token_weights)
        return self.text.family.condition(text_embeds, batch.crops_B6)


@dataclass(frozen=True)
class StepResult:
    """What a step came to."""

    losses: list[float]  # of each micro-batch
    norm: float  # of the gradient, before it was clipped; 0 where it was not finite
    bands: tuple[float | None, ...]  # mean loss by noise level, None where no image fell into it


class NotFinite(ArithmeticError):
    """A loss is no longer a finite number."""


def run_step(step: TrainingStep, batches: Iterable[Batch], *, count: int) -> StepResult:
    """One optimizer step from `count` micro-batches, which lie on the CPU.

    The gradient is the batches' mean. An epoch's last step may have fewer: `count` is its own
    length, so that its batches move the weights as far as those of a full one.

    Raises: NotFinite; the weights are then those of the step before.
    """
    ts: list[Tensor] = []
    losses: list[Tensor] = []
    for batch in batches:
        with step.own_rng(batch.micro_step):
            loss_B = step.loss(batch.to(step.accelerator.device))
            step.backward(loss_B, count)
        ts.append(batch.t_B)
        losses.append(loss_B.detach())
    # Read after all is queued, since reading waits for the device.
    means: list[float] = torch.stack([loss_B.mean() for loss_B in losses]).tolist()
    if not all(map(math.isfinite, means)):
        step.zero_grad()
        raise NotFinite
    norm = float(step.optimizer_step())  # fp16: the scaler skips a step whose norm is not finite
    return StepResult(means, norm if math.isfinite(norm) else 0.0, losses_by_band(ts, losses))


class seeded_rng(AbstractContextManager[None]):
    """Torch's own generators start from a seed inside the block, and go on as before after it."""

    def __init__(self, device: torch.device, seed: int) -> None:
        devices = [device] if device.type == "cuda" else []
        self._fork = torch.random.fork_rng(devices=devices)
        self._seed = seed

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)
