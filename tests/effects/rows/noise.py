"""Noise, losses and masks."""

from tests.effects.observers import batch, loss
from tests.effects.stage import Row

OFFSET = {"noise_offset": 0.2}
MULTIRES = {"noise_offset_type": "Multires", "multires_noise_iterations": 4}
HUBER = {"loss_type": "huber"}
PREDICTS_V = {"v_parameterization": True}

ROWS = {
    "loss_type": Row(loss, "l1"),
    "huber_schedule": Row(loss, "constant", given=HUBER),
    "huber_c": Row(loss, 0.5, given=HUBER),
    "huber_scale": Row(loss, 3.0, given=HUBER),
    "min_snr_gamma": Row(loss, 0.001),
    "debiased_estimation_loss": Row(loss, True),
    "v_pred_like_loss": Row(loss, 0.5),
    "scale_v_pred_loss_like_noise_pred": Row(loss, True, given=PREDICTS_V),
    "zero_terminal_snr": Row(loss, True, given=PREDICTS_V),
    "prior_loss_weight": Row(loss, 0.25, given={"reg_data_dir": "@shared/reg"}),
    "alpha_mask": Row(batch, True),
    "masked_loss": Row(batch, True, given={"conditioning_data_dir": "@shared/masks"}),
    "noise_offset": Row(batch, 0.2),
    "noise_offset_random_strength": Row(batch, True, given=OFFSET),
    "adaptive_noise_scale": Row(batch, 0.5, given=OFFSET),
    "noise_offset_type": Row(batch, "Multires", given={**OFFSET, "multires_noise_iterations": 4}),
    "multires_noise_iterations": Row(batch, 4, given={"noise_offset_type": "Multires"}),
    "multires_noise_discount": Row(batch, 0.9, given=MULTIRES),
    "ip_noise_gamma": Row(batch, 0.1),
    "ip_noise_gamma_random_strength": Row(batch, True, given={"ip_noise_gamma": 0.1}),
    "min_timestep": Row(batch, 900),
    "max_timestep": Row(batch, 10),
}
