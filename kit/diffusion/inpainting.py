"""Inpainting conditions: the mask and the masked image behind a U-Net's noisy latents.

Its first layer has 9 channels, in the order of diffusers' inpainting pipelines: 4 of the noisy
latents, 1 of the hole (1 is to be painted), 4 of the latents of the picture with a gray hole.
Source: https://github.com/huggingface/diffusers/blob/main/src/diffusers/pipelines/
stable_diffusion/pipeline_stable_diffusion_inpaint.py.

Shapes: B batch, 3 colours, H W picture, C latent channels, h w latent height and width, 5 = 1 + C.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kit.basemodel.detecting import INPAINTING
from kit.families import Family

GRAY = 0.0  # of pixels from -1 to 1


@dataclass(frozen=True)
class MaskedImage:
    """One masked picture, as VAE and U-Net see it; unscaled, float32 on the CPU."""

    inpaint_mask_hw: Tensor
    mean_Chw: Tensor
    logvar_Chw: Tensor


def takes_inpaint_cond(family: Family) -> bool:
    """The base is an inpainting model."""
    return bool(family.unet.config.in_channels == INPAINTING)


def grayed(pixels_3HW: Tensor, inpaint_mask_HW: Tensor) -> Tensor:
    """The picture, gray where the hole is."""
    return torch.where(inpaint_mask_HW, torch.full_like(pixels_3HW, GRAY), pixels_3HW)


def inpaint_cond(inpaint_mask_hw: Tensor, latents_Chw: Tensor) -> Tensor:
    """What is read of one picture beside its noisy latents, shape 5 h w; latents are scaled."""
    return torch.cat([inpaint_mask_hw[None], latents_Chw])


def unet_input(noisy_BChw: Tensor, inpaint_cond_B5hw: Tensor | None) -> Tensor:
    """All that the U-Net reads: the noisy latents, and behind them what is beside, if anything."""
    if inpaint_cond_B5hw is None:
        return noisy_BChw
    return torch.cat([noisy_BChw, inpaint_cond_B5hw.to(noisy_BChw)], dim=1)


def blank_inpaint_cond(family: Family, size: tuple[int, int]) -> Tensor | None:
    """What is read beside when nothing is there yet: all of (width, height) is a hole, shape 5 h w.

    None where the base is no inpainting model.
    """
    if not takes_inpaint_cond(family):
        return None
    pixels_13HW = torch.full((1, 3, size[1], size[0]), GRAY)
    mean_1Chw, _ = family.encode_pixels(pixels_13HW)
    latents_Chw = mean_1Chw[0] * family.latent_scale
    return inpaint_cond(torch.ones_like(latents_Chw[0]), latents_Chw)
