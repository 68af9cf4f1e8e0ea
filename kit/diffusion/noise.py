"""Noise, timesteps and targets: pure functions on tensors.

Shapes: B batch, C latent channels, h w latent height and width, T the 1000 timesteps.
Conventions: alpha-bar of a timestep is `alphas_cumprod_T[t]` (Ho et al. 2020); SNR is alpha-bar /
(1 - alpha-bar).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from kit.families import Prediction
from kit.randomness import seed_for

TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012  # every Stable Diffusion up to XL


@cache
def alphas_cumprod(*, zero_terminal_snr: bool = False) -> Tensor:
    """Alpha-bar of every timestep, shape T, float32 on the CPU ("scaled linear" betas).

    zero_terminal_snr: shifted and scaled so that the last step is pure noise, for models that were
    trained so. Sources: Rombach et al. 2022, https://arxiv.org/abs/2112.10752; Lin et al. 2023,
    https://arxiv.org/abs/2305.08891, algorithm 1.
    """
    roots_T = torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float32)
    kept_T = torch.cumprod(1.0 - roots_T**2, dim=0)
    if not zero_terminal_snr:
        return kept_T
    alpha_T = kept_T.sqrt()
    first, last = alpha_T[0], alpha_T[-1]
    return ((alpha_T - last) * first / (first - last)) ** 2


def snr(alphas_cumprod_T: Tensor) -> Tensor:
    """Signal-to-noise ratio of every timestep, shape T."""
    alpha_T = alphas_cumprod_T.sqrt()
    sigma_T = (1.0 - alphas_cumprod_T).sqrt()
    return (alpha_T / sigma_T) ** 2


def add_noise(
    latents_BChw: Tensor, noise_BChw: Tensor, t_B: Tensor, *, zero_terminal_snr: bool = False
) -> Tensor:
    """The latents at their timesteps: sqrt(a) x + sqrt(1 - a) eps (Ho et al. 2020, eq. 4)."""
    alpha_B111, sigma_B111 = _alpha_sigma(t_B, latents_BChw, zero_terminal_snr)
    return alpha_B111 * latents_BChw + sigma_B111 * noise_BChw


def target(
    latents_BChw: Tensor,
    noise_BChw: Tensor,
    t_B: Tensor,
    predicts: Prediction,
    *,
    zero_terminal_snr: bool = False,
) -> Tensor:
    """What the U-Net should answer: the noise, or v = sqrt(a) eps - sqrt(1 - a) x.

    Source of v: Salimans and Ho 2022, https://arxiv.org/abs/2202.00512, appendix D.
    """
    if predicts is Prediction.EPSILON:
        return noise_BChw
    alpha_B111, sigma_B111 = _alpha_sigma(t_B, latents_BChw, zero_terminal_snr)
    return alpha_B111 * noise_BChw - sigma_B111 * latents_BChw


def offset_noise(noise_BChw: Tensor, draws_BC: Tensor, strength: float | Tensor) -> Tensor:
    """Noise whose channel means also vary, by strength times one normal draw per channel.

    strength: one number, or one per sample and channel, shape B C.
    Source: Guttenberg 2023, https://www.crosslabs.org/blog/diffusion-with-offset-noise.
    """
    return noise_BChw + (strength * draws_BC)[:, :, None, None]


def adapted_offset(latents_BChw: Tensor, offset: float, scale: float) -> Tensor:
    """A noise offset that grows with each latent channel's distance from 0, shape B C."""
    return (offset + scale * latents_BChw.mean(dim=(2, 3)).abs()).clamp(min=0)


def multires_noise(noise_BChw: Tensor, draws: Sequence[Tensor], *, discount: float) -> Tensor:
    """Noise with coarser noise on top, each level weaker by `discount`, of unit deviation again.

    draws: noise of each level, shape B C and the level's sides, as `multires_sides` gives them.
    Source: Whitaker 2023, https://wandb.ai/johnowhitaker/multires_noise.
    """
    h, w = noise_BChw.shape[2:]
    for level, draw_BChw in enumerate(draws):
        stretched = torch.nn.functional.interpolate(draw_BChw, size=(h, w), mode="bilinear")
        noise_BChw = noise_BChw + stretched * discount**level
    return noise_BChw / noise_BChw.std()


def multires_sides(height: int, width: int, ratios: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Height and width of each level: divided by the ratio to the level's power, until a side is 1.

    ratios: one for each level, from 2 to 4.
    """
    for level, ratio in enumerate(ratios):
        sides = max(1, int(height / ratio**level)), max(1, int(width / ratio**level))
        yield sides
        if 1 in sides:
            return


def draw_timestep(*address: int | str, least: int = 0, end: int = TIMESTEPS) -> int:
    """A timestep from `least` to `end` - 1, every one alike."""
    generator = torch.Generator().manual_seed(seed_for(*address))
    return int(torch.randint(least, end, (), generator=generator))


def draw_uniform(low: float, high: float, *address: int | str) -> float:
    """A number from `low` to `high` for this address."""
    generator = torch.Generator().manual_seed(seed_for(*address))
    return low + (high - low) * torch.rand((), generator=generator).item()


def draw_normal(shape: tuple[int, ...], *address: int | str) -> Tensor:
    """Standard normal numbers for this address, float32 on the CPU, the same on every device."""
    generator = torch.Generator().manual_seed(seed_for(*address))
    return torch.randn(shape, generator=generator)


def _alpha_sigma(t_B: Tensor, like: Tensor, zero_terminal_snr: bool) -> tuple[Tensor, Tensor]:
    """Square roots of alpha-bar and of 1 - alpha-bar per sample, shape B 1 1 1."""
    kept_B = _alphas_cumprod_on(like.device, zero_terminal_snr)[t_B].to(like.dtype)
    return kept_B.sqrt()[:, None, None, None], (1.0 - kept_B).sqrt()[:, None, None, None]


@cache
def _alphas_cumprod_on(device: torch.device, zero_terminal_snr: bool) -> Tensor:
    """The table where it is read: copied once, not at each step."""
    return alphas_cumprod(zero_terminal_snr=zero_terminal_snr).to(device)
