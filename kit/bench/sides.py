"""The two that are timed: the product's own step, and a plain loop of diffusers and PEFT.

Shapes: B batch, C latent channels, h w latent height and width, N tokens, D features.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, init_empty_weights
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional

from kit.devices import DTYPES, check_precision, choose_device, make_accelerator
from kit.diffusion.noise import BETA_END, BETA_START
from kit.settings import NetworkSettings
from kit.training.network_setup import recompute_gradients
from kit.training.step import run_step

PRECISIONS = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}
from kit.bench.models import RATE, full_batch, full_family, full_step

KEYS = {"sd15": "sd1", "sd21": "sd2", "sdxl": "sdxl"}


class Ours:
    """The product's own step.

    Raises: DeviceError where the device lacks the precision.
    """

    def __init__(self, chosen: argparse.Namespace) -> None:
        device, precision = choose_device(), PRECISIONS[chosen.precision]
        check_precision(device, precision)
        accelerator = make_accelerator(device, precision)
        self.family = full_family(KEYS[chosen.family], device=device, dtype=DTYPES[precision])
        self.training_step, self.network = full_step(
            self.family, accelerator, rank=chosen.rank, text_encoder=chosen.text_encoder
        )
        if chosen.checkpointing:
            recompute_gradients(self.family, text_encoders=chosen.text_encoder)
        self.batch = full_batch(self.family, px=chosen.px, count=chosen.batch)
        self.chosen, self.device, self.precision = chosen, device, precision

    def step(self) -> float:
        """One optimizer step; its loss."""
        result = run_step(self.training_step, [self.batch], count=1)
        finish(self.device)
        return result.losses[0]


class Theirs:
    """What diffusers' train_text_to_image_lora scripts do in a step, for the same work as ours.

    Unlike the scripts, text encoders may learn (as in its DreamBooth scripts), all of our layers
    are adapted (the scripts: attention only), and neither the VAE nor a data loader runs.
    """

    def __init__(self, ours: Ours) -> None:
        self.batch, self.device, self.key = ours.batch, ours.device, ours.family.key
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
        self.unet, *self.text_encoders = [_twin(part, adapted, ours.chosen) for part in parts]
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
        assert self.batch.tokens is not None and self.batch.crops_B6 is not None
        ids = [ids_BKN[:, 0].to(self.device) for ids_BKN in self.batch.tokens]
        if self.key != "sdxl":
            return self.text_encoders[0](ids[0])[0].to(self.unet.dtype), None
        read = [
            encoder(each, output_hidden_states=True)
            for encoder, each in zip(self.text_encoders, ids, strict=True)
        ]
        hidden_BND = torch.cat([output.hidden_states[-2] for output in read], dim=-1)
        conditions = {
            "text_embeds": read[1].text_embeds.to(self.unet.dtype),
            "time_ids": self.batch.crops_B6.to(self.device),
        }
        return hidden_BND.to(self.unet.dtype), conditions


def _twin(part: nn.Module, adapted: set[nn.Module], chosen: argparse.Namespace) -> Any:
    """A second module over the same frozen weights, with PEFT's adapters on the same layers."""
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    with init_empty_weights(include_buffers=False):
        kind: Any = type(part)
        twin = kind.from_config(part.config) if hasattr(kind, "from_config") else kind(part.config)
    twin.load_state_dict(part.state_dict(), assign=True)
    twin.to(next(part.parameters()).device).requires_grad_(False)
    paths = [path for path, module in part.named_modules() if module in adapted]
    if paths:
        twin.add_adapter(
            LoraConfig(
                r=chosen.rank,
                lora_alpha=NetworkSettings().network_alpha,
                init_lora_weights="gaussian",
                target_modules=paths,
            )
        )
        cast_training_params(twin, dtype=torch.float32)
    if chosen.checkpointing and paths:
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
