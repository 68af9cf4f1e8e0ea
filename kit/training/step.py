"""A training step on tensors, numbers and callables: loss, backward, optimizer step.

    for batch in batches:
        loss_B = step.loss(batch)           # noise added, U-Net asked, error weighed
        step.backward(loss_B, count)        # gradient of the mean over all batches
    norm = step.clip()                      # the gradient's norm, a tensor on the device
    step.update()                           # optimizer, LR schedule, zero_grad, norm limit

They are apart because graphs and several processes stand between them. Loss, backward and clip read
no number back from the device, their shapes are the batch's, and what is fixed over a run was
decided before it. `run_step` is the whole of it: it reads losses and norm, together and once, when
all but the update is queued, so that what is not finite never moves the weights.

Shapes: B batch, C latent channels, h w latent height and width.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from kit.diffusion import noise as diffusion
from kit.diffusion.inpainting import unet_input
from kit.diffusion.losses import Objective, losses_by_band
from kit.families import Conditioning
from kit.families.text import TextConditioner
from kit.optim.flat import flat_of
from kit.optim.learning_rates import at_requested_rates
from kit.optim.optimization import Optimization
from kit.randomness import seed_for
from kit.training.batches import Batch
from kit.training.copies import Copies
from kit.training.shared_gradient import Seen, SharedGradient
from kit.training.soundness import NotFinite, Place, Unsound, all_finite


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
    copies: Copies | None = None  # of the network; None: it computes under autocast
    rows: int = 0  # the most images at once, whose gradients are then gathered; 0: all of a batch
    keeps_gradients: bool = False  # zeroed in their places, which a captured step knows
    shared: SharedGradient | None = None  # with other processes; None: this one is alone
    forgotten: int = 0  # how often a gradient was
    is_sharded: bool = False  # the base lies on all of them

    def loss(self, batch: Batch) -> Tensor:
        """The denoising loss of each image of a batch, shape B: its weighted mean error.

        The batch lies on the device.
        """
        return denoising_loss(batch, self.text, self.objective, self._precision)

    def backward(self, loss_B: Tensor, count: float) -> None:
        """Add the gradient of a batch's mean loss, of which a step gathers `count`."""
        self.accelerator.backward(loss_B.mean() / count)
        if self.copies is not None:
            self.copies.gather()

    def gradient(self, batch: Batch, count: float) -> Tensor:
        """Add the gradient of a batch that lies on the CPU; returns each image's loss, shape B."""
        return self.gradient_of(batch.to(self.accelerator.device), count)

    def gradient_of(self, batch: Batch, count: float) -> Tensor:
        """The same of a batch on the device."""
        loss_B = self.loss(batch)
        self.backward(loss_B, count)
        return loss_B.detach()

    def optimizer_step(self) -> Tensor:
        """Move the weights along the gradient, and forget it; returns its norm before clipping."""
        norm = self.clip()
        self.update()
        return norm

    def update(self) -> None:
        """Move the weights along the gradient as it is, and forget it."""
        self.is_whole = False
        optimizer = self.optimization.optimizer
        with at_requested_rates(optimizer):
            self._stepping.step()
        if not self.has_overflowed:
            self.optimization.scheduler.step()
        self.zero_grad()
        if self.limit_norms and self.max_weight_norm:
            self.limit_norms(self.max_weight_norm)
        self.is_whole = True

    @property
    def _stepping(self) -> Any:
        """What steps: accelerate's wrapper, which looks for packages each time, where it scales."""
        optimizer = self.optimization.optimizer
        return _bare(optimizer) if self.accelerator.scaler is None else optimizer

    @property
    def has_overflowed(self) -> bool:
        """fp16: the scaler met an overflow, and left out the last update."""
        return bool(getattr(self.optimization.optimizer, "step_was_skipped", False))

    def skip(self) -> None:
        """Leave out a step: the schedule goes on, weights and optimizer stay as they are."""
        self.forget()
        with warnings.catch_warnings():  # torch asks for an optimizer's step before the schedule's
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self.optimization.scheduler.step()

    def clip(self) -> Tensor:
        """Shorten the gradient to max_grad_norm; returns its norm before."""
        optimizer = self.optimization.optimizer
        self._wake_scaler()
        if (flat := flat_of(optimizer)) is not None:
            with flat.as_one():
                self.accelerator.unscale_gradients()
            return flat.clip(self.max_grad_norm)
        weights = [p for g in optimizer.param_groups for p in g["params"]]
        norm: Tensor | None = self.accelerator.clip_grad_norm_(weights, self.max_grad_norm)
        return torch.zeros(()) if norm is None else norm

    def _wake_scaler(self) -> None:
        """A process that has made no loss since it began has its first gradient of others."""
        scaler = self.accelerator.scaler
        if scaler is not None and getattr(scaler, "_scale", None) is None:
            scaler.scale(torch.zeros((), device=self.accelerator.device))

    def pieces(self, batch: Batch, count: float) -> Iterator[tuple[Batch, float]]:
        """What of a batch is asked at once, and the count of it: all of it, or a few images."""
        size = len(batch.t_B)
        for piece in batch.pieces(self.rows):
            yield piece, count * (size / len(piece.t_B))

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.forgotten += 1
        _bare(self.optimization.optimizer).zero_grad(set_to_none=not self.keeps_gradients)

    def forget(self) -> None:
        """Forget the gradient, also where one was broken off, or the scaler has looked at it."""
        self.zero_grad()
        if self.copies is not None:
            self.copies.are_fresh = False
        scaler = self.accelerator.scaler
        if scaler is not None and getattr(scaler, "_scale", None) is not None:
            scaler.update(scaler.get_scale())  # the same scale, and nothing looked at

    def own_rng(self, micro_step: int) -> AbstractContextManager[None]:
        """For networks with dropouts: random numbers that belong to this micro-step alone."""
        if self.dropout_seed is None:
            return nullcontext()
        seed = seed_for(self.dropout_seed, "dropout", micro_step)
        return seeded_rng(self.accelerator.device, seed)

    def _precision(self) -> AbstractContextManager[Any]:
        """What a forward pass computes in: the base's own precision, or that of autocast."""
        if self.copies is None:
            return self.accelerator.autocast()
        self.copies.refresh()
        return nullcontext()


def _bare(optimizer: Optimizer) -> Any:
    """The optimizer within accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def denoising_loss(
    batch: Batch,
    text: TextConditioner,
    objective: Objective,
    precision: Callable[[], AbstractContextManager[Any]],
) -> Tensor:
    """The loss of each image of a batch, shape B: its weighted mean error.

    The batch lies on the device. precision: what the base model computes in.
    Source: Ho et al. 2020, eq. 14.
    """
    latents, noise, t_B = batch.latents_BChw, batch.noise_BChw, batch.t_B
    zero = objective.zero_terminal_snr
    input_noise = noise if batch.perturbation_BChw is None else noise + batch.perturbation_BChw
    noisy = diffusion.add_noise(latents, input_noise, t_B, zero_terminal_snr=zero)
    model_input = unet_input(noisy, batch.inpaint_cond_B5hw)
    with precision():
        prediction = text.family.predict(model_input, t_B, _conditioning(batch, text))
    target = diffusion.target(latents, noise, t_B, objective.predicts, zero_terminal_snr=zero)
    loss_B = objective.losses(prediction, target, t_B, mask_B1hw=batch.mask_B1hw)
    return loss_B * batch.weight_B * objective.weight_T[t_B]


def _conditioning(batch: Batch, text: TextConditioner) -> Conditioning:
    """What the U-Net reads beside the noisy latents: captions, encoded now or before."""
    text_embeds = batch.text_embeds
    if text_embeds is None:
        assert batch.tokens is not None
        text_embeds = text.encode(batch.tokens, batch.token_weights)
    return text.family.condition(text_embeds, batch.crops_B6)


@dataclass(frozen=True)
class StepResult:
    """What a step came to."""

    losses: list[float]  # of each micro-batch
    norm: float  # of the gradient, before it was clipped; 0 where it was not finite
    bands: tuple[float | None, ...]  # mean loss by noise level, None where no image fell into it


Watch = Callable[[StepResult], None]
Gradient = Callable[[Batch, float], Tensor]  # as TrainingStep.gradient


def run_step(
    step: TrainingStep,
    batches: Iterable[Batch],
    *,
    count: int,
    watch: Watch | None = None,
    gradient: Gradient | None = None,
) -> StepResult:
    """One optimizer step from `count` micro-batches, which lie on the CPU.

    Of several processes each gives its own micro-batches; `count` is that of all of them.

    The gradient is the batches' mean. An epoch's last step may have fewer: `count` is its own
    length, so that its batches move the weights as far as those of a full one.
    watch: sees what the step came to before it moves the weights, and may raise.
    gradient: how a step engine makes a batch's gradient; without one, call by call.

    Raises: NotFinite, and what `watch` raises; the weights are then those of the step before.
    """
    seen = gathered(step, batches, count=count, gradient=gradient)
    return judged(step, seen, watch=watch)


def judged(step: TrainingStep, seen: Sequence[Seen], *, watch: Watch | None = None) -> StepResult:
    """Read what a gathered gradient came to, and move the weights along it.

    Raises: as `run_step`.
    """
    norm = step.clip()
    means, each, length = _read([one.loss_B for one in seen], norm)
    try:
        places = [(one.micro_step, row) for one in seen for row in range(len(one.t_B))]
        _check(step, each, length, places)
        length = length if math.isfinite(length) else 0.0
        bands = losses_by_band([one.t_B for one in seen], [torch.tensor(each)])
        result = StepResult(means, length, bands)
        if watch is not None:
            watch(result)
    except Unsound:
        step.forget()
        raise
    if step.shared is not None:
        step.shared.moves()
    step.update()
    return result


def gathered(
    step: TrainingStep,
    batches: Iterable[Batch],
    *,
    count: int,
    gradient: Gradient | None = None,
    idle: Batch | None = None,
) -> list[Seen]:
    """The gradient of a step, with all processes' parts of it; what each micro-batch came to.

    idle: a batch that is another process's, which needs us for it; nothing of it stays here.

    Raises: ProcessLost; MemoryError where another process had not enough memory.
    """
    way = gradient or step.gradient
    try:
        if idle is not None:
            _backward(step, idle, count, way)
            step.zero_grad()
        seen = [Seen(b.micro_step, b.t_B, _backward(step, b, count, way)) for b in batches]
    except Exception as error:
        if step.shared is not None:
            step.shared.fail(error)
        raise
    return seen if step.shared is None else step.shared.add_up(seen)


def _backward(step: TrainingStep, batch: Batch, count: float, gradient: Gradient) -> Tensor:
    """Add a batch's gradient, of all its images at once or of a few after the other; its losses."""
    with step.own_rng(batch.micro_step):
        return torch.cat([gradient(*piece) for piece in step.pieces(batch, count)])


def _read(losses: list[Tensor], norm: Tensor) -> tuple[list[float], list[float], float]:
    """The mean of each batch, every image's loss, and the gradient's norm: one waiting in all."""
    device = losses[0].device
    means = torch.stack([loss_B.mean() for loss_B in losses]).float()
    tail = norm.detach().to(device, torch.float32).reshape(1)
    numbers: list[float] = torch.cat([means, *(each.float() for each in losses), tail]).tolist()
    return numbers[: len(losses)], numbers[len(losses) : -1], numbers[-1]


def _check(step: TrainingStep, each: list[float], norm: float, places: list[Place]) -> None:
    """Raises: NotFinite for a loss, or for a gradient that no scaler looks at."""
    bad = [
        (place, loss) for place, loss in zip(places, each, strict=True) if not math.isfinite(loss)
    ]
    if bad:
        found = f"the loss is no longer a finite number ({bad[0][1]})"
        raise NotFinite("loss", found, places=[place for place, _ in bad])
    if not math.isfinite(norm) and step.accelerator.scaler is None:
        groups = step.optimization.optimizer.param_groups
        learning = [w for group in groups for w in group["params"] if w.grad is not None]
        bad_weights = [weight for weight in learning if not all_finite([weight.grad])]
        found = f"the gradient is not finite (its norm is {norm})"
        raise NotFinite("gradient", found, weights=bad_weights)


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
