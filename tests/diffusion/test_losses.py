"""Losses and weights: the reference's numbers, and its defects put right."""

import json
import math
from pathlib import Path

import pytest
import torch

from kit.diffusion import losses, noise
from kit.families import Prediction

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = json.loads((GOLDEN / "snr_weights.json").read_text())
T = torch.tensor(RECORDED["timesteps"])
SNR = torch.tensor(RECORDED["snr"])
KEPT = noise.alphas_cumprod()
LOSS = RECORDED["conditional_loss"]


def close(ours: torch.Tensor, theirs: list[float]) -> bool:
    return torch.allclose(ours, torch.tensor(theirs), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("name", [k for k in RECORDED["min_snr"] if k.endswith(("eps", "v"))])
def test_min_snr_weights_are_the_references(name):
    gamma, kind = name.removeprefix("gamma").split("_")
    predicts = Prediction.V if kind == "v" else Prediction.EPSILON
    ours = losses.min_snr_weight(SNR, float(gamma), predicts=predicts)
    assert close(ours, RECORDED["min_snr"][name])


def test_debiased_weights_are_the_references():
    ours = losses.debiased_weight(SNR, predicts=Prediction.EPSILON)
    assert close(ours, RECORDED["debiased_eps"])
    assert close(losses.debiased_weight(SNR, predicts=Prediction.V), RECORDED["debiased_v"])


def test_v_and_noise_prediction_weights_are_the_references():
    assert close(losses.v_like_noise_weight(SNR), RECORDED["scale_v_pred_like_noise"])
    assert close(losses.noise_like_v_weight(SNR, 1.0), RECORDED["v_pred_like_loss_1e0"])
    assert close(losses.noise_like_v_weight(SNR, 0.01), RECORDED["v_pred_like_loss_1e_2"])


@pytest.mark.parametrize("name", [k for k in RECORDED["huber_c"] if not k.startswith("snr")])
def test_huber_thresholds_are_the_references(name):
    schedule, c, scale = name.split("_")
    ours = losses.huber_threshold(
        T, KEPT, schedule=schedule, c=float(c[1:]), scale=float(scale.removeprefix("scale"))
    )
    theirs = RECORDED["huber_c"][name]
    assert close(ours, theirs if isinstance(theirs, list) else [theirs] * len(T))


@pytest.mark.parametrize(
    "name", [k for k in RECORDED["huber_c"] if k.startswith("snr") and "scale" in k]
)
def test_the_snr_schedule_obeys_huber_scale_which_the_reference_leaves_out(name):
    _, c, scale = name.split("_")
    factor = float(scale.removeprefix("scale"))
    ours = losses.huber_threshold(T, KEPT, schedule="snr", c=float(c[1:]), scale=factor)
    assert close(ours / factor, RECORDED["huber_c"][name])


@pytest.mark.parametrize("kind", LOSS["per_sample_mean"])
def test_the_mean_losses_are_the_references(kind):
    prediction, target = (
        torch.tensor(LOSS[name]).reshape(LOSS["shape"]) for name in ("pred", "target")
    )
    ours = losses.element_loss(
        prediction, target, loss_type=kind, threshold_B=torch.tensor(LOSS["huber_c"])
    )
    assert close(ours.mean((1, 2, 3)), LOSS["per_sample_mean"][kind])


def test_huber_is_square_near_zero_and_straight_far_away():
    errors = torch.tensor([0.01, 100.0]).view(1, 1, 1, 2)
    ours = losses.element_loss(
        errors, torch.zeros_like(errors), loss_type="huber", threshold_B=torch.tensor([0.5])
    )
    near, far = ours.flatten().tolist()
    assert near == pytest.approx(0.01**2, rel=1e-3)
    assert far == pytest.approx(2 * 0.5 * 100, rel=1e-2)


def test_a_mask_leaves_out_what_is_black():
    loss = torch.ones(1, 4, 2, 2)
    mask = torch.tensor([[[[1.0, 0.0], [0.5, 0.0]]]])
    assert losses.masked(loss, mask).mean() == pytest.approx((1 + 0.5) / 4)
    assert losses.masked(loss, None) is loss


@pytest.mark.parametrize("predicts", Prediction)
def test_no_weight_is_infinite_at_pure_noise(predicts):
    none = torch.zeros(1)
    for weight in (
        losses.min_snr_weight(none, 5, predicts=predicts),
        losses.debiased_weight(none, predicts=predicts),
        losses.v_like_noise_weight(none),
        losses.noise_like_v_weight(none, 1.0),
    ):
        assert math.isfinite(weight.item())
