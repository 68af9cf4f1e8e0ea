"""From setting to formula: the loss of a batch, computed anew in float64 from what the U-Net said.

Every setting of noise and loss, under noise and under v prediction; the numbers here are those of
the settings, so that one that is doubled, squared or left out on its way shows.
Shapes: B batch, T the 1000 timesteps.
"""

import numpy as np
import pytest

from kit.dataset.batches import batch_at
from kit.settings import Noise
from tests.effects.stage import BASE
from tests.effects.test_noise_by_hand import NOISES

HUBER = {"loss_type": "huber", "huber_c": 0.3, "huber_scale": 1.7}
SMOOTH = {"loss_type": "smooth_l1", "huber_c": 0.2, "huber_scale": 0.6}
MASKS = {"masked_loss": True, "conditioning_data_dir": "@shared/masks"}
BOTH = {
    "l2": {"loss_type": "l2"},
    "l1": {"loss_type": "l1"},
    "huber constant": {**HUBER, "huber_schedule": "constant"},
    "huber exponential": {**HUBER, "huber_schedule": "exponential"},
    "huber snr": {**HUBER, "huber_schedule": "snr"},
    "smooth_l1 constant": {**SMOOTH, "huber_schedule": "constant"},
    "smooth_l1 exponential": {**SMOOTH, "huber_schedule": "exponential"},
    "smooth_l1 snr": {**SMOOTH, "huber_schedule": "snr"},
    "min-SNR": {"min_snr_gamma": 0.7},
    "debiased": {"debiased_estimation_loss": True},
    "ip noise": {"ip_noise_gamma": 0.4, "min_snr_gamma": 3},
    "prior": {"prior_loss_weight": 0.3, "reg_data_dir": "@shared/reg"},
    "masks": {**MASKS, "loss_type": "l1"},
    "alpha": {"alpha_mask": True, "masked_loss": True},
}
OF_NOISE = {
    "v-like": {"v_pred_like_loss": 0.3},
    "v-like and min-SNR": {"v_pred_like_loss": 0.6, "min_snr_gamma": 2},
}
OF_V = {
    "noise-like": {"scale_v_pred_loss_like_noise_pred": True},
    "noise-like and min-SNR": {"scale_v_pred_loss_like_noise_pred": True, "min_snr_gamma": 4},
    "zero terminal": {"zero_terminal_snr": True, "min_snr_gamma": 5},
    "zero terminal huber": {"zero_terminal_snr": True, **HUBER, "huber_schedule": "snr"},
}
V = {"v_parameterization": True}
CASES = {
    **{f"{name}, noise": changes for name, changes in {**BOTH, **OF_NOISE}.items()},
    **{f"{name}, v": {**changes, **V} for name, changes in {**BOTH, **OF_V}.items()},
}


def kept_T(asked):
    """Alpha-bar (Ho et al. 2020), rescaled (Lin et al. 2023, algorithm 1) where it is asked for."""
    root_T = np.sqrt(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))
    if asked.get("zero_terminal_snr"):
        root_T = (root_T - root_T[-1]) * root_T[0] / (root_T[0] - root_T[-1])
    return root_T**2


def weight_of(asked, snr, *, is_v):
    """Min-SNR, v-like, noise-like and debiased weights of one image."""
    weight = 1.0
    if gamma := asked.get("min_snr_gamma"):
        weight *= min(snr, gamma) / (snr + 1 if is_v else snr)
    if asked.get("scale_v_pred_loss_like_noise_pred"):
        weight *= min(snr, 1000) / (min(snr, 1000) + 1)
    if strength := asked.get("v_pred_like_loss"):
        weight *= 1 + strength * (min(snr, 1000) + 1) / min(snr, 1000)
    if asked.get("debiased_estimation_loss"):
        weight *= 1 / (min(snr, 1000) + 1) if is_v else min(snr, 1000) ** -0.5
    return weight


def error_of(asked, difference, t, kept):
    """The mean over elements is taken later: a mask comes between."""
    kind = asked.get("loss_type", "l2")
    if kind == "l2":
        return difference**2
    if kind == "l1":
        return np.abs(difference)
    c, sigma = asked["huber_c"], ((1 - kept) / kept) ** 0.5
    delta = {
        "constant": c,
        "exponential": c ** (t / 1000),
        "snr": (1 - c) / (1 + sigma) ** 2 + c,
    }[asked["huber_schedule"]] * asked["huber_scale"]
    rest = np.sqrt(difference**2 + delta**2) - delta
    return 2 * delta * rest if kind == "huber" else 2 * rest


def watched(ready, batch):
    """The product's loss of a batch, what its U-Net was given, and what it answered."""
    seen = []
    hook = ready.family.unet.register_forward_hook(
        lambda _, args, answer: seen.append((args[0], answer.sample.detach()))
    )
    loss = ready.training_step.loss(batch).mean().item()
    hook.remove()
    [(given, answer)] = seen
    return loss, given.double().numpy(), answer.double().numpy()


def by_hand(asked, ready, batch, answer):
    """The loss, and what the U-Net should have been given."""
    kept, is_v, told, given = kept_T(asked), "v_parameterization" in asked, [], []
    for row, t in enumerate(batch.t_B.tolist()):
        clean, noise = (x[row].double().numpy() for x in (batch.latents_BChw, batch.noise_BChw))
        more = batch.perturbation_BChw
        seen = noise if more is None else noise + more[row].double().numpy()
        alpha, sigma = kept[t] ** 0.5, (1 - kept[t]) ** 0.5
        given.append(alpha * clean + sigma * seen)
        goal = alpha * noise - sigma * clean if is_v else noise
        error = error_of(asked, answer[row] - goal, t, kept[t])
        if batch.mask_B1hw is not None:
            error = error * batch.mask_B1hw[row].double().numpy()
        snr = kept[t] / (1 - kept[t])
        told.append(
            error.mean() * weight_of(asked, snr, is_v=is_v) * prior(asked, ready, batch, row)
        )
    return np.mean(told), np.stack(given)


def prior(asked, ready, batch, row):
    """The share of a regularisation image."""

    _, uses = batch_at(ready.plan.layout, batch.micro_step)
    return asked["prior_loss_weight"] if ready.plan.images[uses[row].image].is_reg else 1.0


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_that_of_the_formulas(stage, case):
    asked = CASES[case]
    settings = stage.settings({**BASE, "train_batch_size": 2, "epoch": 3, **asked})
    with stage.prepared(settings) as ready:
        sizes = set()
        for number in range(ready.plan.batches_per_epoch):
            batch = ready.batch_builder.batch(number)
            loss, given, answer = watched(ready, batch)
            wanted, should_be_given = by_hand(asked, ready, batch, answer)
            assert np.abs(given - should_be_given).max() < 1e-5
            assert loss == pytest.approx(wanted, rel=2e-4)
            sizes.add(len(batch.t_B))
            if "mask" in case or case.startswith("alpha"):
                assert batch.mask_B1hw is not None
        assert 2 in sizes  # a mean over images, too
        if "prior" in case:
            assert any(image.is_reg for image in ready.plan.images)


def test_every_setting_of_noise_and_loss_is_computed_here():

    computed = {name for changes in [*CASES.values(), *NOISES.values()] for name in changes}
    assert {*Noise.model_fields} <= computed
