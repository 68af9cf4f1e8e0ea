"""Pixels to latents and back, through a frozen VAE.

Shapes: B batch, 3 colours, H W picture, C latent channels, h w latent height and width.
"""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor


@torch.no_grad()
def encode_pixels(vae: AutoencoderKL, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and logvar of the latents, unscaled, in float32, on the VAE's device."""
    seen_B3HW = pixels_B3HW.to(vae.device, vae.dtype)
    posterior = vae.encode(seen_B3HW).latent_dist
    return posterior.mean.float(), posterior.logvar.float()


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents_BChw: Tensor, *, scale: float) -> Tensor:
    """Scaled latents to pixels in [-1, 1], float32 on the CPU."""
    unscaled_BChw = (latents_BChw.float() / scale).to(vae.device, vae.dtype)
    return vae.decode(unscaled_BChw).sample.float().clamp(-1, 1).cpu()
