"""Noise, targets and loss weights: pure functions on tensors.

Shapes: B batch, C latent channels, h w latent height and width, T the 1000 timesteps.
Conventions: alpha-bar of a timestep is `alphas_cumprod_T[t]` (Ho et al. 2020); SNR is alpha-bar /
(1 - alpha-bar).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from kit.addresses import seed_at
from kit.families import Prediction

TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012  # every Stable Diffusion up to XL


@cache
def alphas_cumprod() -> Tensor:
    """Alpha-bar of every timestep, shape T, float32 on the CPU ("scaled linear" betas).

    Source: latent diffusion's schedule, Rombach et al. 2022, https://arxiv.org/abs/2112.10752.
    """
    roots_T = torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float32)
    return torch.cumprod(1.0 - roots_T**2, dim=0)


def snr(alphas_cumprod_T: Tensor) -> Tensor:
    """Signal-to-noise ratio of every timestep, shape T."""
    alpha_T = alphas_cumprod_T.sqrt()
    sigma_T = (1.0 - alphas_cumprod_T).sqrt()
    return (alpha_T / sigma_T) ** 2


def add_noise(latents_BChw: Tensor, noise_BChw: Tensor, t_B: Tensor) -> Tensor:
    """The latents at their timesteps: sqrt(a) x + sqrt(1 - a) eps (Ho et al. 2020, eq. 4)."""
    alpha_B111, sigma_B111 = _alpha_sigma(t_B, latents_BChw)
    return alpha_B111 * latents_BChw + sigma_B111 * noise_BChw


def target(latents_BChw: Tensor, noise_BChw: Tensor, t_B: Tensor, predicts: Prediction) -> Tensor:
    """What the U-Net should answer: the noise, or v = sqrt(a) eps - sqrt(1 - a) x.

    Source of v: Salimans and Ho 2022, https://arxiv.org/abs/2202.00512, appendix D.
    """
    if predicts is Prediction.EPSILON:
        return noise_BChw
    alpha_B111, sigma_B111 = _alpha_sigma(t_B, latents_BChw)
    return alpha_B111 * noise_BChw - sigma_B111 * latents_BChw


def min_snr_weight(snr_B: Tensor, gamma: float, *, predicts: Prediction) -> Tensor:
    """Weight of each sample so that no noise level dominates, shape B.

    Source: Min-SNR, Hang et al. 2023, https://arxiv.org/abs/2303.09556, section 3.4.
    """
    capped_B = snr_B.clamp(max=gamma)
    return capped_B / snr_B if predicts is Prediction.EPSILON else capped_B / (snr_B + 1)


def offset_noise(noise_BChw: Tensor, draws_BC: Tensor, strength: float) -> Tensor:
    """Noise whose channel means also vary, by strength times one normal draw per channel.

    Source: Guttenberg 2023, https://www.crosslabs.org/blog/diffusion-with-offset-noise.
    """
    return noise_BChw + strength * draws_BC[:, :, None, None]


def draw_timestep(*address: int | str) -> int:
    """A timestep from 0 to 999, every one alike."""
    generator = torch.Generator().manual_seed(seed_at(*address))
    return int(torch.randint(TIMESTEPS, (), generator=generator))


def draw_normal(shape: tuple[int, ...], *address: int | str) -> Tensor:
    """Standard normal numbers for this address, float32 on the CPU, the same on every device."""
    generator = torch.Generator().manual_seed(seed_at(*address))
    return torch.randn(shape, generator=generator)


def _alpha_sigma(t_B: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Square roots of alpha-bar and of 1 - alpha-bar per sample, shape B 1 1 1."""
    kept_B = alphas_cumprod().to(like.device)[t_B].to(like.dtype)
    return kept_B.sqrt()[:, None, None, None], (1.0 - kept_B).sqrt()[:, None, None, None]
