"""Losses between prediction and target, and the weight of each sample: pure functions.

Shapes: B batch, C latent channels, h w latent height and width, T the 1000 timesteps.
`snr_B` is the signal-to-noise ratio of each sample's timestep, of the schedule that is trained with
(after the zero-terminal rescale where there is one: the reference takes it before, its defect).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kit.diffusion.noise import TIMESTEPS, alphas_cumprod, snr
from kit.families import Prediction
from kit.settings import Noise

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


def timestep_weights(noise: Noise, snr_T: Tensor, *, predicts: Prediction) -> Tensor:
    """How much each timestep's loss counts, shape T: the settings' weights, multiplied."""
    weight_T = torch.ones_like(snr_T)
    if noise.min_snr_gamma:
        weight_T = weight_T * min_snr_weight(snr_T, noise.min_snr_gamma, predicts=predicts)
    if noise.scale_v_pred_loss_like_noise_pred:
        weight_T = weight_T * v_like_noise_weight(snr_T)
    if noise.v_pred_like_loss:
        weight_T = weight_T * noise_like_v_weight(snr_T, noise.v_pred_like_loss)
    if noise.debiased_estimation_loss:
        weight_T = weight_T * debiased_weight(snr_T, predicts=predicts)
    return weight_T


@dataclass(frozen=True)
class Objective:
    """What the U-Net is asked for, and how its error counts: fixed over a run.

    The tables by timestep lie on the device.
    """

    predicts: Prediction
    zero_terminal_snr: bool
    weight_T: Tensor  # how much a timestep's loss counts
    loss_type: str = "l2"
    threshold_T: Tensor | None = None  # where huber turns from quadratic to linear

    def losses(
        self, prediction: Tensor, target: Tensor, t_B: Tensor, *, mask_B1hw: Tensor | None
    ) -> Tensor:
        """The mean error of each image, shape B; prediction and target: B C h w."""
        loss_BChw = element_loss(
            prediction.float(),
            target.float(),
            loss_type=self.loss_type,
            threshold_B=None if self.threshold_T is None else self.threshold_T[t_B],
        )
        return masked(loss_BChw, mask_B1hw).mean((1, 2, 3))


def make_objective(
    noise: Noise, *, predicts: Prediction, zero_terminal_snr: bool, device: torch.device
) -> Objective:
    """The settings' losses and weights, for what a base model predicts."""
    kept_T = alphas_cumprod(zero_terminal_snr=zero_terminal_snr)
    threshold_T = None
    if noise.loss_type in HUBER_LIKE:
        threshold_T = huber_threshold(
            torch.arange(TIMESTEPS),
            kept_T,
            schedule=noise.huber_schedule,
            c=noise.huber_c,
            scale=noise.huber_scale,
        ).to(device)
    return Objective(
        predicts=predicts,
        zero_terminal_snr=zero_terminal_snr,
        weight_T=timestep_weights(noise, snr(kept_T), predicts=predicts).to(device),
        loss_type=noise.loss_type,
        threshold_T=threshold_T,
    )


def losses_by_band(ts: Sequence[Tensor], losses: Sequence[Tensor]) -> tuple[float | None, ...]:
    """The mean loss of each noise level, None where no image fell into it.

    ts, losses: timesteps (on the CPU) and losses of batches, each of shape B. Waits for the device.
    """
    rows: list[list[int]] = [[] for _ in range(BANDS)]
    for row, t in enumerate(t for t_B in ts for t in t_B.tolist()):
        rows[t * BANDS // TIMESTEPS].append(row)
    loss = torch.cat([loss_B.float() for loss_B in losses]).cpu()
    return tuple(round(float(loss[each].mean()), 6) if each else None for each in rows)
