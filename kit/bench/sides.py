"""The two that are timed: the product's own step, and a plain loop of diffusers and PEFT.

Shapes: B batch, C latent channels, h w latent height and width, N tokens, D features.
"""

from __future__ import annotations

import platform
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, init_empty_weights
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from kit import catalog
from kit.bench.models import full_batch, full_family, full_step
from kit.bench.work import FAMILIES, PRECISIONS, RATE, Work
from kit.devices import DTYPES, check_precision, choose_device, make_accelerator
from kit.diffusion.noise import BETA_END, BETA_START
from kit.errors import MissingPackage, in_a_line
from kit.settings import Machine, NetworkSettings
from kit.training.batches import Batch
from kit.training.engine_choice import make_engine
from kit.training.network_setup import recompute_gradients
from kit.training.step import TrainingStep, run_step


class Ours:
    """The product's own step.

    Raises: DeviceError where the device lacks the precision; MissingPackage.
    """

    def __init__(self, work: Work) -> None:
        self.work, self.device = work, choose_device()
        self.precision = PRECISIONS[work.precision]
        check_precision(self.device, self.precision)
        accelerator = make_accelerator(self.device, self.precision)
        dtype, key = DTYPES[self.precision], FAMILIES[work.family]
        self.family = full_family(
            key, device=self.device, dtype=dtype, base_precision=work.base_precision
        )
        self.training_step, self.network = full_step(
            self.family,
            accelerator,
            rank=work.rank,
            text_encoder=work.text_encoder,
            optimizer_type=work.optimizer,
        )
        self.batch = full_batch(self.family, px=work.px, count=work.batch)
        if not work.encodes:
            self.batch = _with_embeds(self.batch, self.training_step)
        if work.checkpointing:
            recompute_gradients(self.family, text_encoders=work.text_encoder, draws=False)
        self.engine = make_engine(
            self.training_step,
            self.network,
            Machine(step_engine=work.step_engine),
            checkpointing=work.checkpointing,
        )

    def step(self) -> float:
        """One optimizer step; its loss."""
        made = self.engine.gradient
        result = run_step(self.training_step, [self.batch], count=1, gradient=made)
        finish(self.device)
        return result.losses[0]

    def phases(self) -> dict[str, float]:
        """Seconds of one step's parts, each finished before the next begins."""
        step, marks = self.training_step, [time.perf_counter()]

        def mark() -> None:
            finish(self.device)
            marks.append(time.perf_counter())

        batch = self.batch.to(self.device)
        mark()
        loss_B = step.loss(batch)
        mark()
        step.backward(loss_B, 1)
        mark()
        step.optimizer_step()
        mark()
        names = ("batch to the device", "forward", "backward", "optimizer")
        return {name: marks[n + 1] - marks[n] for n, name in enumerate(names)}

    def flops(self) -> float:
        """Of a step's forward and backward pass; what checkpointing computes again is not counted.

        One image is counted, and stands for the others. From here nothing is recomputed, and more
        memory is held: it is the last thing to ask.
        """
        for module in (self.family.unet, *self.family.text_encoders):
            for part in module.modules():
                if hasattr(part, "gradient_checkpointing"):
                    part.gradient_checkpointing = False
        with FlopCounterMode(display=False) as counter:
            one = full_batch(self.family, px=self.work.px, count=1)
            if not self.work.encodes:
                one = _with_embeds(one, self.training_step)
            self.training_step.loss(one.to(self.device)).mean().backward()
        self.training_step.zero_grad()
        return float(counter.get_total_flops()) * self.work.batch


def _with_embeds(batch: Batch, step: TrainingStep) -> Batch:
    """The batch with its captions encoded, as a cache gives them."""
    assert batch.tokens is not None
    tokens = tuple(part.to(step.accelerator.device) for part in batch.tokens)
    with torch.no_grad(), step.accelerator.autocast():
        embeds = step.text.encode(tokens)
    return replace(batch, tokens=None, text_embeds=embeds.to(torch.device("cpu")))


class Theirs:
    """What diffusers' train_text_to_image_lora scripts do in a step, for the same work as ours.

    Unlike the scripts, text encoders may learn (as in its DreamBooth scripts), all of our layers
    are adapted (the scripts: attention only), captions may be given (the scripts encode them in
    each step), and neither the VAE nor a data loader runs.

    Raises: MissingPackage without peft.
    """

    def __init__(self, ours: Ours) -> None:
        self.batch, self.device = ours.batch, ours.device
        self.longest = ours.training_step.max_grad_norm
        self.accelerator = Accelerator(
            mixed_precision=ours.precision, cpu=self.device.type == "cpu"
        )
        self.noise = DDPMScheduler(
            beta_start=BETA_START, beta_end=BETA_END, beta_schedule="scaled_linear"
        )
        names = dict(ours.network.named())
        adapted: set[nn.Module] = {
            layer.module for layer in ours.family.layers() if layer.name in names
        }
        parts = [ours.family.unet, *ours.family.text_encoders]
        self.unet, *self.text_encoders = [_twin(part, adapted, ours.work) for part in parts]
        self.weights = [
            weight
            for part in (self.unet, *self.text_encoders)
            for weight in part.parameters()
            if weight.requires_grad
        ]
        self.text_learns = any(w.requires_grad for e in self.text_encoders for w in e.parameters())
        self.optimizer = self.accelerator.prepare_optimizer(
            torch.optim.AdamW(self.weights, lr=RATE)
        )

    def step(self) -> float:
        """One optimizer step; its loss."""
        latents_BChw = self.batch.latents_BChw.to(self.device)
        noise_BChw, t_B = self.batch.noise_BChw.to(self.device), self.batch.t_B.to(self.device)
        noisy_BChw = self.noise.add_noise(latents_BChw, noise_BChw, t_B)
        with self.accelerator.autocast():
            with torch.set_grad_enabled(self.text_learns):
                hidden_BND, conditions = self._read()
            guess_BChw = self.unet(
                noisy_BChw.to(self.unet.dtype), t_B, hidden_BND, added_cond_kwargs=conditions
            ).sample
        loss = functional.mse_loss(guess_BChw.float(), noise_BChw.float())
        shown = loss.item()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.weights, self.longest)
        self.optimizer.step()
        self.optimizer.zero_grad()
        finish(self.device)
        return shown

    def _read(self) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Captions as the U-Net reads them, and SDXL's conditions."""
        given, dtype = self.batch.text_embeds, self.unet.dtype
        if given is not None:
            hidden_BND = given.hidden_BND.to(self.device, dtype)
            return hidden_BND, self._conditions(given.pooled_BP)
        assert self.batch.tokens is not None
        ids = [ids_BKN[:, 0].to(self.device) for ids_BKN in self.batch.tokens]
        if len(self.text_encoders) == 1:
            return self.text_encoders[0](ids[0])[0].to(dtype), None
        read = [
            encoder(each, output_hidden_states=True)
            for encoder, each in zip(self.text_encoders, ids, strict=True)
        ]
        hidden_BND = torch.cat([output.hidden_states[-2] for output in read], dim=-1)
        return hidden_BND.to(dtype), self._conditions(read[1].text_embeds)

    def _conditions(self, pooled_BP: Tensor | None) -> dict[str, Tensor] | None:
        """What SDXL's U-Net reads beside the words."""
        if pooled_BP is None:
            return None
        assert self.batch.crops_B6 is not None
        pooled_BP = pooled_BP.to(self.device, self.unet.dtype)
        return {"text_embeds": pooled_BP, "time_ids": self.batch.crops_B6.to(self.device)}


def _twin(part: nn.Module, adapted: set[nn.Module], work: Work) -> Any:
    """A second module over the same frozen weights, with PEFT's adapters on the same layers."""
    from diffusers.training_utils import cast_training_params

    lora_config = catalog.load("peft:LoraConfig", needs="peft")
    with init_empty_weights(include_buffers=False):
        kind: Any = type(part)
        twin = kind.from_config(part.config) if hasattr(kind, "from_config") else kind(part.config)
    twin.load_state_dict(part.state_dict(), assign=True)
    twin.to(next(part.parameters()).device).requires_grad_(False)
    paths = [path for path, module in part.named_modules() if module in adapted]
    if paths:
        config = lora_config(
            r=work.rank,
            lora_alpha=int(NetworkSettings().network_alpha),
            init_lora_weights="gaussian",
            target_modules=paths,
        )
        try:
            twin.add_adapter(config)
        except (ImportError, ValueError) as error:  # transformers asks for another version
            raise MissingPackage(
                f"--against diffusers cannot adapt {kind.__name__} with peft {version('peft')}: "
                f"{in_a_line(error)}",
                do="Install the version that it asks for, or leave --text-encoder away.",
            ) from error
        cast_training_params(twin, dtype=torch.float32)
    if work.checkpointing and paths:
        enable = getattr(twin, "enable_gradient_checkpointing", None)
        (enable or twin.gradient_checkpointing_enable)()
        twin.train()
    return twin


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def device_name() -> str:
    """The GPU, or the CPU with the threads that compute."""
    device = choose_device()
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple {platform.machine()} GPU"
    return f"{_cpu_name()}, {torch.get_num_threads()} threads"


def _cpu_name() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text("utf-8").splitlines() if facts.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def device_peak() -> int | None:
    """The most GPU memory held since it was forgotten, in MiB; None without CUDA."""
    return torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else None


def forget_device_peak() -> None:
    """Count peaks from here."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
