"""Base models of their real size with random weights, and steps around them; no files are read.

Weights are scaled so that signals neither fade nor grow, the same on every device up to rounding.

Shapes: B batch, C latent channels, h w latent height and width, 6 numbers of a crop.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig

from kit.adapters.network import Network, parts_of
from kit.bench.steps import make_step
from kit.bench.work import RATE
from kit.families import Family, Prediction
from kit.families.clip import packaged_tokenizer
from kit.families.few_places import quicken
from kit.families.loading import FAMILIES, compress_base, config_folder
from kit.families.undivided import spare_divisions
from kit.settings import NetworkSettings
from kit.training.batches import Batch
from kit.training.step import TrainingStep

SEED = 1
BLOCK = 1_000_003  # random numbers that all weights are cut from; prime, so that rows differ
# What a text encoder's layers add to its stream. At full strength SDXL's penultimate states, which
# no norm follows, have a spread of 16 to 20: attention saturates, 0.1 % of noise in the latents
# moves the gradient by 10 %, bf16's rounding by 130 %. So: 0.01 % and 1.8 %.
WRITE_TO_STREAM = ("self_attn.out_proj.weight", "mlp.fc2.weight")
CAPTION = "a photo of a corgi with its tongue out, sitting on a ledge, cherry blossom behind"


def full_parts(key: str, *, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """U-Net, text encoders and VAE of "sd1", "sd2" or "sdxl", the VAE without weights."""
    parts = {part.name: part.kind for part in FAMILIES[key].encoder_parts(key)}
    parts = {"unet": UNet2DConditionModel, **parts}
    made = {name: empty_part(kind, config_folder(key) / name) for name, kind in parts.items()}
    for module in made.values():
        fill(module, device=device, dtype=dtype)
    return {**made, "vae": empty_part(AutoencoderKL, config_folder(key) / "vae")}


def empty_part(kind: Any, folder: Path) -> Any:
    """A part on the meta device, where it takes no memory."""
    with init_empty_weights(include_buffers=False):
        if issubclass(kind, UNet2DConditionModel | AutoencoderKL):
            return kind.from_config(kind.load_config(folder))
        return kind(CLIPTextConfig.from_pretrained(folder))


def fill(module: nn.Module, *, device: torch.device, dtype: torch.dtype) -> None:
    """Give an empty module weights; it is frozen then."""
    draws = torch.randn(BLOCK, generator=torch.Generator().manual_seed(SEED)).to(device)
    weights = {
        name: _filled(name, tensor.shape, draws).to(dtype)
        for name, tensor in module.state_dict().items()
    }
    module.load_state_dict(weights, assign=True)
    # A state dict leaves out what is not saved: CLIP's position_ids.
    module.to(device).requires_grad_(False).eval()


def _filled(name: str, shape: torch.Size, draws: Tensor) -> Tensor:
    if len(shape) == 1:
        return torch.full(shape, float(name.endswith("weight")), device=draws.device)
    scale = 0.02 if "embedding." in name else 0.8 / math.sqrt(math.prod(shape[1:]))
    if name.endswith(WRITE_TO_STREAM):
        scale *= 0.1
    weight = torch.empty(math.prod(shape), device=draws.device)
    for start in range(0, len(weight), BLOCK):
        piece = weight[start : start + BLOCK]
        torch.mul(draws[: len(piece)], scale, out=piece)
    return weight.reshape(shape)


def full_family(
    key: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    base_precision: str = "as_mixed_precision",
) -> Family:
    """A whole family, its VAE without weights.

    Raises: DeviceError, MissingPackage where base_precision cannot be had.
    """
    parts = full_parts(key, device=device, dtype=dtype)
    compress_base(parts["unet"], [], base_precision, device)
    if device.type == "cpu" and dtype is torch.float32:
        quicken(parts["unet"])
    spare_divisions(parts["unet"])
    unet, vae, told = parts["unet"], parts["vae"], FAMILIES[key].encoder_parts(key)
    tokenizers = [packaged_tokenizer(part.pad, splits_pad=part.splits_pad) for part in told]
    encoders = [parts[part.name] for part in told]
    return FAMILIES[key].of_parts(key, Prediction.EPSILON, False, unet, vae, encoders, tokenizers)


def full_step(
    family: Family,
    accelerator: Accelerator,
    *,
    rank: int = 8,
    text_encoder: bool = True,
    optimizer_type: str = "AdamW",
) -> tuple[TrainingStep, Network]:
    """The product's own step around a family, and its network: a plain LoRA at 1e-4."""
    rates = {part: RATE * (part == "unet" or text_encoder) for part in parts_of(family)}
    network = NetworkSettings(network_dim=rank)
    return make_step(
        family,
        network,
        rates,
        accelerator=accelerator,
        seed=SEED,
        optimizer_type=optimizer_type,
    )


def full_batch(family: Family, *, px: int, count: int) -> Batch:
    """A batch of noise; the timesteps lie evenly between the ends."""
    generator = torch.Generator().manual_seed(SEED)
    shape = (count, family.unet.config.in_channels, px // 8, px // 8)
    return Batch(
        latents_BChw=torch.randn(shape, generator=generator),
        noise_BChw=torch.randn(shape, generator=generator),
        t_B=torch.linspace(0, 999, count + 2)[1:-1].long(),
        weight_B=torch.ones(count),
        tokens=family.tokenize([CAPTION] * count, max_token_length=75),
        text_embeds=None,
        crops_B6=torch.tensor([[px, px, 0, 0, px, px]] * count),
    )
