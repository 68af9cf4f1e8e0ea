"""Losses between prediction and target, and the weight of each sample: pure functions.

Shapes: B batch, C latent channels, h w latent height and width, T the 1000 timesteps.
`snr_B` is the signal-to-noise ratio of each sample's timestep, of the schedule that is trained with
(after the zero-terminal rescale where there is one: the reference takes it before, its defect).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kit.diffusion.noise import TIMESTEPS
from kit.families import Prediction

BANDS = 4  # of 250 timesteps each
LEAST_SNR, MOST_SNR = 1e-8, 1000.0  # pure noise has none; nearly clean latents have any
HUBER_LIKE = ("huber", "smooth_l1")


def element_loss(
    guess_BChw: Tensor, goal_BChw: Tensor, *, loss_type: str, threshold_B: Tensor | None = None
) -> Tensor:
    """The loss of each element, shape B C h w: "l2", "l1", "huber" or "smooth_l1".

    The last two are pseudo-Huber: quadratic below the threshold, linear above it; "huber" is
    scaled by the threshold, so that its middle is the squared error.
    Source: Charbonnier et al. 1997; for diffusion: https://arxiv.org/abs/2403.16728, eq. 8.
    """
    error_BChw = guess_BChw - goal_BChw
    if loss_type == "l2":
        return error_BChw.square()
    if loss_type == "l1":
        return error_BChw.abs()
    assert loss_type in HUBER_LIKE and threshold_B is not None, loss_type
    delta_B111 = threshold_B.to(error_BChw)[:, None, None, None]
    beyond_BChw = (error_BChw.square() + delta_B111.square()).sqrt() - delta_B111
    return 2 * beyond_BChw * (delta_B111 if loss_type == "huber" else 1)


def huber_threshold(
    t_B: Tensor, alphas_cumprod_T: Tensor, *, schedule: str, c: float, scale: float
) -> Tensor:
    """Where huber turns from quadratic to linear, shape B.

    "constant": the same at every timestep; "exponential": falls from 1 to c; "snr": falls with the
    noise. `scale` multiplies all three (the reference leaves it out of "snr", its defect).
    Source: https://arxiv.org/abs/2403.16728, section 4.2.
    """
    if schedule == "constant":
        return torch.full_like(t_B, c * scale, dtype=torch.float32)
    if schedule == "exponential":
        return torch.exp(math.log(c) * t_B.float() / TIMESTEPS) * scale
    assert schedule == "snr", schedule
    kept_B = alphas_cumprod_T.to(t_B.device)[t_B]
    sigma_B = ((1 - kept_B) / kept_B.clamp(min=LEAST_SNR)).sqrt()
    return ((1 - c) / (1 + sigma_B) ** 2 + c) * scale


def masked(loss_BChw: Tensor, mask_B1hw: Tensor | None) -> Tensor:
    """Each element's loss times its place's weight, from 0 (left out) to 1; None means all of it.

    Not divided by the mask's area, as in the reference: a small subject counts little.
    """
    return loss_BChw if mask_B1hw is None else loss_BChw * mask_B1hw.to(loss_BChw)


def min_snr_weight(snr_B: Tensor, gamma: float, *, predicts: Prediction) -> Tensor:
    """Weight of each sample so that no noise level dominates, shape B.

    Source: Min-SNR, Hang et al. 2023, https://arxiv.org/abs/2303.09556, section 3.4.
    """
    snr_B = snr_B.clamp(min=LEAST_SNR)  # pure noise has none, and would divide 0 by 0
    capped_B = snr_B.clamp(max=gamma)
    return capped_B / snr_B if predicts is Prediction.EPSILON else capped_B / (snr_B + 1)


def debiased_weight(snr_B: Tensor, *, predicts: Prediction) -> Tensor:
    """1 / sqrt(SNR) for noise prediction, 1 / (SNR + 1) for v, shape B.

    Source: Debiased estimation, Yu et al. 2023, https://arxiv.org/abs/2310.08442, eq. 11.
    """
    capped_B = snr_B.clamp(min=LEAST_SNR, max=MOST_SNR)
    return 1 / (capped_B + 1) if predicts is Prediction.V else capped_B.rsqrt()


def v_like_noise_weight(snr_B: Tensor) -> Tensor:
    """SNR / (SNR + 1): a v-prediction loss counts at each timestep as a noise loss would, shape B.

    Follows from v = sqrt(a) eps - sqrt(1 - a) x, Salimans and Ho 2022, appendix D.
    """
    capped_B = snr_B.clamp(max=MOST_SNR)
    return capped_B / (capped_B + 1)


def noise_like_v_weight(snr_B: Tensor, strength: float) -> Tensor:
    """1 + strength (SNR + 1) / SNR: adds a v-like share to a noise-prediction loss, shape B."""
    capped_B = snr_B.clamp(min=LEAST_SNR, max=MOST_SNR)
    return 1 + strength * (capped_B + 1) / capped_B


class Bands:
    """The losses of a step's images by noise level; reading them waits for the device, once."""

    def __init__(self) -> None:
        self._told: list[tuple[Tensor, Tensor]] = []

    def add(self, t_B: Tensor, loss_B: Tensor) -> None:
        """Take in a batch."""
        self._told.append((t_B, loss_B))

    def take(self) -> tuple[float | None, ...]:
        """The mean loss of each band since the last time, None where no image fell into it."""
        told, self._told = self._told, []
        if not told:
            return (None,) * BANDS
        bands = torch.cat([t_B for t_B, _ in told]) * BANDS // TIMESTEPS
        losses = torch.cat([loss_B.float() for _, loss_B in told]).cpu()
        return tuple(
            round(float(losses[bands == band].mean()), 6) if bool((bands == band).any()) else None
            for band in range(BANDS)
        )
