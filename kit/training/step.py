"""Everything a run works with, made ready from its plan: model, caches, network, optimizer, state.

Shapes: B batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from kit import catalog
from kit.adapters.network import Network
from kit.caching.inpaint_latents import InpaintLatents
from kit.caching.latents import (
    CaptionReader,
    LatentEncoder,
    Latents,
    OnTheFlyLatents,
    TextEmbedCache,
    cache_latents,
    cache_text_embeds,
)
from kit.devices import (
    check_precision,
    choose_device,
    describe,
    free_memory,
    make_accelerator,
)
from kit.diffusion import losses
from kit.diffusion import noise as diffusion
from kit.diffusion.inpainting import unet_input
from kit.diffusion.losses import Bands
from kit.errors import Diverged
from kit.events import Event, Loaded, Noticed
from kit.families import Family
from kit.families.base_model import fetched_model, find_model, load_model, require_model
from kit.optim.making import Optimization, at_requested_rates, effective_rates_of
from kit.planning import Plan
from kit.randomness import seed_for
from kit.settings import Noise, Settings
from kit.settings.prompts import Prompt
from kit.settings.rules import caches_latents, caches_text_embeds
from kit.settings.rules.rates import rates
from kit.training.batches import Batch, BatchBuilder
from kit.training.checkpoint import Checkpoint, Losses
from kit.training.compiling import compile_unet
from kit.training.lora_saving import FileWriter, file_writer
from kit.training.network_setup import (
    attached_network,
    check_optimizer,
    make_optimization,
    recompute_gradients,
)
from kit.training.sampling import SamplePipeline, make_scheduler, rescales, samplers_of
from kit.training.staging import staged_images, staged_model


@dataclass
class Workshop:
    """One run's machinery; `learn` is the product's one training step."""

    plan: Plan
    accelerator: Accelerator
    family: Family
    network: Network
    optimization: Optimization
    batch_builder: BatchBuilder
    pipeline: SamplePipeline
    losses: Losses
    checkpoint: Checkpoint
    snr_T: Tensor
    bands: Bands = field(default_factory=Bands)
    typed: list[Prompt] = field(default_factory=list)  # prompts requested along the way

    def begin(self, step: int) -> dict[str, float]:
        """Make ready for a step; returns the rate of every group that it will use."""
        stop = self.plan.text_encoder_stop
        if stop and step > stop:
            self.network.stop_text_encoders()
        return effective_rates_of(self.optimization)

    def learn(self, batches: Iterable[Batch], *, count: int) -> tuple[list[float], float]:
        """One optimizer step from `count` batches: their losses, and the gradient's norm.

        The gradient is the batches' mean. An epoch's last step may have fewer: `count` is its own
        length, so that its batches move the weights as far as those of a full one.

        Raises: Diverged where a loss is not finite; the weights are then those of the step before.
        """
        told = []
        for batch in batches:
            with self._own_rng(batch.micro_step):
                loss = self.loss(batch)
                self.accelerator.backward(loss / count)
            # Read after backward was queued: reading waits for the device.
            told.append(loss.item())
            if not math.isfinite(told[-1]):
                self.optimization.optimizer.zero_grad(set_to_none=True)
                raise _diverged(self.plan.settings)
        norm = self._clip()
        optimizer = self.optimization.optimizer
        with at_requested_rates(optimizer):
            optimizer.step()
        if not getattr(optimizer, "step_was_skipped", False):  # fp16: the scaler met an overflow
            self.optimization.scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        network = self.plan.settings.network
        reads_it = "scale_weight_norms" in catalog.LORA_TYPES[network.LoRA_type].uses
        if network.scale_weight_norms and reads_it:  # where it is not read, the plan has said so
            self.network.limit_norms(network.scale_weight_norms)
        return told, norm

    def loss(self, batch: Batch) -> Tensor:
        """The denoising loss of a batch: mean over its images of weighted mean errors.

        Source: Ho et al. 2020, eq. 14; errors and weights are those of `kit.diffusion.losses`.
        """
        device, zero = self.accelerator.device, self.family.zero_terminal_snr
        latents, noise = batch.latents_BChw.to(device), batch.noise_BChw.to(device)
        t_B, input_noise = batch.t_B.to(device), noise
        if batch.perturbation_BChw is not None:
            input_noise = noise + batch.perturbation_BChw.to(device)
        noisy = diffusion.add_noise(latents, input_noise, t_B, zero_terminal_snr=zero)
        model_input = unet_input(noisy, batch.inpaint_cond_B5hw)
        with self.accelerator.autocast():
            text_embeds = batch.text_embeds.to(device) if batch.text_embeds else self._encode(batch)
            prediction = self.family.predict(model_input, t_B, text_embeds, batch.time_ids_B6)
        target = diffusion.target(latents, noise, t_B, self.family.predicts, zero_terminal_snr=zero)
        loss_BChw = losses.element_loss(
            prediction.float(),
            target.float(),
            loss_type=self._noise.loss_type,
            threshold_B=self._huber(t_B),
        )
        loss_B = losses.masked(loss_BChw, batch.mask_B1hw).mean((1, 2, 3))
        loss_B = loss_B * batch.weight_B.to(device) * self._snr_weight(t_B)
        self.bands.add(batch.t_B, loss_B.detach())
        return loss_B.mean()

    def _huber(self, t_B: Tensor) -> Tensor | None:
        noise = self._noise
        if noise.loss_type not in losses.HUBER_LIKE:
            return None
        kept_T = diffusion.alphas_cumprod(zero_terminal_snr=self.family.zero_terminal_snr)
        return losses.huber_threshold(
            t_B, kept_T, schedule=noise.huber_schedule, c=noise.huber_c, scale=noise.huber_scale
        )

    def _snr_weight(self, t_B: Tensor) -> Tensor | float:
        """How much each sample's noise level counts, in the reference's order."""
        noise, predicts = self._noise, self.family.predicts
        snr_B = self.snr_T.to(t_B.device)[t_B]
        weight: Tensor | float = 1.0
        if noise.min_snr_gamma:
            weight = losses.min_snr_weight(snr_B, noise.min_snr_gamma, predicts=predicts)
        if noise.scale_v_pred_loss_like_noise_pred:
            weight = weight * losses.v_like_noise_weight(snr_B)
        if noise.v_pred_like_loss:
            weight = weight * losses.noise_like_v_weight(snr_B, noise.v_pred_like_loss)
        if noise.debiased_estimation_loss:
            weight = weight * losses.debiased_weight(snr_B, predicts=predicts)
        return weight

    def close(self) -> None:
        """Leave the base model as it was, and no thread behind."""
        self.network.detach_hooks()
        self.batch_builder.latents.close()

    def number_of(self, prompt: Prompt) -> int:
        """The place of a prompt that was typed while it trains: behind those of the plan."""
        if prompt not in self.typed:
            self.typed.append(prompt)
        return len(self.plan.prompts) + self.typed.index(prompt)

    @property
    def _noise(self) -> Noise:
        return self.plan.settings.noise

    def _encode(self, batch: Batch) -> Any:
        assert batch.tokens is not None
        return self.family.encode_tokens(
            batch.tokens,
            clip_skip=self.plan.settings.memory.clip_skip,
            weights=batch.token_weights,
        )

    def _clip(self) -> float:
        """Shorten the gradient to max_grad_norm, 0 for never; returns its length before."""
        weights = [p for g in self.optimization.optimizer.param_groups for p in g["params"]]
        longest = self.plan.settings.basic.max_grad_norm or float("inf")
        norm = self.accelerator.clip_grad_norm_(weights, longest)
        length = float(norm) if norm is not None else 0.0
        return length if math.isfinite(length) else 0.0  # fp16: the scaler skips this step

    def _own_rng(self, micro_step: int) -> AbstractContextManager[None]:
        """For networks with dropouts: random numbers that belong to this micro-step alone."""
        if not self.network.draws:
            return nullcontext()
        return seeded_rng(self.accelerator.device, seed_for(self.plan.seed, "dropout", micro_step))


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


def prepare(plan: Plan) -> Generator[Event, None, Workshop]:
    """Load, cache, attach, restore.

    Raises: ModelError, DatasetError, DeviceError, LoraFileError, SettingsError, MissingPackage;
    each says what to change.
    """
    settings, began = plan.settings, time.time()
    require_model(settings.model.pretrained_model_name_or_path)
    device = choose_device(settings.machine)
    if settings.machine.gpu_ids and device.type != "cuda":
        yield Noticed(f"gpu_ids has no effect: {describe(device)} trains, no NVIDIA GPU is there")
    check_precision(device, settings.memory.mixed_precision)
    check_optimizer(plan)
    path = yield from fetched_model(settings.model.pretrained_model_name_or_path)
    file, notices = find_model(settings, path)
    for text in notices:
        if text not in plan.notices:
            yield Noticed(text)
    file = yield from staged_model(file)
    plan = yield from staged_images(plan)
    accelerator = make_accelerator(
        device, settings.memory.mixed_precision, half_weights=settings.memory.full_fp16
    )
    family = load_model(settings, file, device)
    for sampler in samplers_of(plan):
        make_scheduler(sampler, family)  # so that one that cannot be used is told before a step
        if family.zero_terminal_snr and not rescales(sampler):
            yield Noticed(
                f"sample_sampler = {sampler} cannot draw from pure noise, as this "
                "zero-terminal-SNR model was trained to: samples will look washed out; ddim or "
                "euler can"
            )
    writer = partial(file_writer, plan, file=file, began=began)
    return (yield from equip(plan, family, accelerator, writer=writer))


def equip(
    plan: Plan, family: Family, accelerator: Accelerator, *, writer: Callable[..., FileWriter]
) -> Generator[Event, None, Workshop]:
    """The workshop around a base model; writer(network, optimization) makes its FileWriter.

    Raises: DatasetError, LoraFileError; each says what to change.
    """
    settings = plan.settings
    latents = yield from _latents(plan, family)
    network = attached_network(plan, family)
    text_embeds = yield from _cached_text_embeds(plan, family, network, accelerator)
    recompute_gradients(settings, family)
    compile_unet(family.unet, settings.machine)
    optimization = make_optimization(plan, family, network, accelerator.device)
    for text in optimization.notices:
        yield Noticed(text)
    averaged = Losses(plan.batches_per_epoch)
    checkpoint = Checkpoint(
        plan,
        network,
        optimization,
        averaged,
        scaler=accelerator.scaler,
        write_file=writer(network, optimization),
    )
    step = checkpoint.resume()
    for text in checkpoint.notices:
        yield Noticed(text)
    optimization.optimizer = accelerator.prepare_optimizer(optimization.optimizer)
    yield Loaded(
        family.label,
        describe(accelerator.device),
        settings.memory.mixed_precision,
        len(network.adapters),
        network.count,
        step,
    )
    memory = settings.memory
    return Workshop(
        plan=plan,
        accelerator=accelerator,
        family=family,
        network=network.train(),
        optimization=optimization,
        batch_builder=BatchBuilder(plan, family, latents, text_embeds),
        pipeline=SamplePipeline(
            family,
            settings.samples.sample_sampler,
            memory.max_token_length,
            memory.clip_skip,
            accelerator.autocast,
        ),
        losses=averaged,
        checkpoint=checkpoint,
        snr_T=diffusion.snr(diffusion.alphas_cumprod(zero_terminal_snr=family.zero_terminal_snr)),
    )


def _latents(plan: Plan, family: Family) -> Generator[Event, None, Latents]:
    """Cached latents, after which the VAE leaves the device; or live ones."""
    encoder = LatentEncoder(plan, family)
    if not caches_latents(plan.settings):
        return (InpaintLatents if plan.settings.model.train_inpainting else OnTheFlyLatents)(
            encoder
        )
    try:
        latents = yield from cache_latents(plan, encoder)
    finally:
        encoder.pictures.close()
    if not plan.settings.memory.highvram:
        family.vae.to("cpu")
        free_memory()
    return latents


def _cached_text_embeds(
    plan: Plan, family: Family, network: Network, accelerator: Accelerator
) -> Generator[Event, None, TextEmbedCache | None]:
    """Cached captions, after which the text encoders leave the device; or none.

    Frozen adapters that network_weights brought for the encoders act on what is cached.
    """
    if not caches_text_embeds(plan.settings):
        return None
    adapters = network.beside_text_encoders()
    with network.eval_mode():
        reader = CaptionReader(plan, family, adapters)
        text_embeds = yield from cache_text_embeds(plan, reader, accelerator.autocast)
    if not plan.settings.memory.highvram:
        for module in (*family.text_encoders, *adapters):
            module.to("cpu").float()  # half precision is slow or missing on CPUs
        free_memory()
    return text_embeds


def _diverged(settings: Settings) -> Diverged:
    return Diverged(
        "The loss is no longer a finite number: this run is over.",
        "The state of the last whole step is kept, and every file written so far is sound.",
        f"Lower learning_rate (U-Net {rates(settings)[0]:g}, text encoder {rates(settings)[1]:g}), "
        "or use mixed_precision = bf16 or no.",
    )
