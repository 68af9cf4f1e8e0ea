"""The probe: the largest batch tried out after loading, before an hour of caching.

A plan forecasts from earlier runs; the probe asks this machine, with this base and this network.
Weights, gradients and random numbers are as before when it is over.

Shapes: B batch, C latent channels, h w latent height and width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from kit.adapters.network import Network
from kit.dataset.batches import Layout
from kit.dataset.buckets import Size
from kit.devices import free_memory, peak_megabytes, ran_out_of_memory
from kit.diffusion.inpainting import blank_inpaint_cond
from kit.errors import DeviceError
from kit.events import Event, Noticed
from kit.families import Family, TextEmbeds
from kit.families.resting import awake
from kit.settings import Memory
from kit.settings.effective import caches_latents, caches_text_embeds
from kit.training.batches import Batch
from kit.training.step import TrainingStep, seeded_rng

# On a CPU the two tries take as long as two steps: at most one of a hundred is given to them.
FEWEST_STEPS_ON_CPU = 200
LATENT = 8  # pixels of a picture beside one of its latent
SEED = 1


@dataclass(frozen=True)
class Try:
    """What a batch took: seconds of forward and backward, and the most memory in use."""

    seconds: float
    megabytes: int


def probed(
    step: TrainingStep,
    network: Network,
    *,
    layout: Layout,
    memory: Memory,
    steps: int,
    told: Callable[[float, int], str],
    advice: Callable[[], str],
) -> Generator[Event, None, None]:
    """Try the largest batch, and tell what it came to, where that costs next to nothing.

    steps: how many are left; told: in words, what a batch's seconds and megabytes say of the run;
    advice: what to set where it does not fit, or "".

    Raises: DeviceError where the memory is not enough.
    """
    if step.accelerator.device.type == "cpu" and steps < FEWEST_STEPS_ON_CPU:
        return
    rows, size = largest_batch(layout)
    try:
        found = tried(step, network, rows, size, memory)
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        raise DeviceError(
            f"The memory is not enough for the largest batch, {_pictures(rows, size)}.",
            "It was tried out before anything was cached or trained.",
            advice() or "Close what else uses the memory, or lower resolution.",
        ) from error
    finally:
        step.zero_grad()
        free_memory()
    words = told(found.seconds, found.megabytes)
    yield Noticed(f"tried out with {_pictures(rows, size)}: {words}")


def largest_batch(layout: Layout) -> tuple[int, Size]:
    """Images and size of the batch with the most pixels."""
    batches = [(part.batch_size, size) for part in layout.parts for size, _ in part.buckets]
    return max(batches, key=lambda batch: batch[0] * math.prod(batch[1]))


def tried(step: TrainingStep, network: Network, rows: int, size: Size, memory: Memory) -> Try:
    """Forward and backward twice, the second time measured; nothing is moved by it."""
    device, family, was_training = step.accelerator.device, step.text.family, network.training
    encoders, cached_text = family.text_encoders, caches_text_embeds(memory)
    with seeded_rng(device, SEED):
        with awake(*encoders):
            batch = _batch(step, network, rows, size, cached_text=cached_text)
        used = [family.unet, *(() if cached_text else encoders)]
        with awake(*used), _resting(_leaving(family, memory), device):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            network.train()
            try:
                _once(step, batch)
                began = time.monotonic()
                _once(step, batch)
                seconds = time.monotonic() - began
            finally:
                network.train(was_training)
            return Try(seconds, peak_megabytes(device))


def _once(step: TrainingStep, batch: Batch) -> None:
    """Forward and backward, to their end on the device."""
    step.zero_grad()
    device = step.accelerator.device
    # Not through the scaler, whose scale is state of the run.
    step.loss(batch.to(device)).mean().backward()  # type: ignore[no-untyped-call]
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _batch(
    step: TrainingStep, network: Network, rows: int, size: Size, *, cached_text: bool
) -> Batch:
    """Noise in the shapes of a run's batches."""
    family, (width, height) = step.text.family, size
    shape = (rows, family.vae.config.latent_channels, height // LATENT, width // LATENT)
    text_embeds, (tokens, weights) = None, step.text.tokens([""] * rows)
    if cached_text:
        with torch.no_grad(), network.eval_mode(), step.accelerator.autocast():
            text_embeds = _float(step.text.embeds([""] * rows))
    beside = blank_inpaint_cond(family, size)
    return Batch(
        latents_BChw=torch.randn(shape),
        noise_BChw=torch.randn(shape),
        t_B=torch.full((rows,), 500),
        weight_B=torch.ones(rows),
        tokens=None if cached_text else tokens,
        token_weights=None if cached_text else weights,
        text_embeds=text_embeds,
        crops_B6=torch.tensor([[height, width, 0, 0, height, width]] * rows),
        inpaint_cond_B5hw=None if beside is None else torch.stack([beside] * rows),
    )


def _float(text_embeds: TextEmbeds) -> TextEmbeds:
    """In the precision in which they are cached."""
    pooled_BP = text_embeds.pooled_BP
    return TextEmbeds(
        text_embeds.hidden_BND.float(), None if pooled_BP is None else pooled_BP.float()
    )


def _leaving(family: Family, memory: Memory) -> list[nn.Module]:
    """What will have left the device when training begins."""
    if memory.highvram:
        return []
    vae = [family.vae] if caches_latents(memory) else []
    return [*vae, *(family.text_encoders if caches_text_embeds(memory) else ())]


@contextmanager
def _resting(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """These are off the device inside the block."""
    if device.type == "cpu":
        yield
        return
    for module in modules:
        module.to("cpu")
    free_memory()
    try:
        yield
    finally:
        for module in modules:
            module.to(device)


def _pictures(rows: int, size: Size) -> str:
    return f"{rows} {'image' if rows == 1 else 'images'} of {size[0]}x{size[1]}"
