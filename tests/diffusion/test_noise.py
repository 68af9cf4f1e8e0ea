"""Noise, targets and weights: the reference's numbers, and draws by their address alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kit.diffusion import losses
from kit.diffusion import noise as diffusion
from kit.families import Prediction

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = json.loads((GOLDEN / "snr_weights.json").read_text())
NOISE = json.loads((GOLDEN / "noise.json").read_text())
T = torch.tensor(RECORDED["timesteps"])


def recorded(*path: str) -> torch.Tensor:
    value = RECORDED
    for name in path:
        value = value[name]
    return torch.tensor(value)


def noising(name: str) -> torch.Tensor:
    return recorded("noising", name).reshape(RECORDED["noising"]["shape"])


def test_alpha_bar_is_the_references_at_every_timestep():
    ours = diffusion.alphas_cumprod()
    assert ours.shape == (1000,)
    assert torch.allclose(ours[T], recorded("alphas_cumprod"), rtol=1e-5)
    assert ours.sum().item() == pytest.approx(RECORDED["sum_alphas_cumprod"], rel=1e-6)


def test_the_signal_to_noise_ratio_is_the_references():
    ours = diffusion.snr(diffusion.alphas_cumprod())
    assert torch.allclose(ours[T], recorded("snr"), rtol=1e-5)


@pytest.mark.parametrize("gamma", [1, 5, 20])
@pytest.mark.parametrize(("kind", "predicts"), [("eps", Prediction.EPSILON), ("v", Prediction.V)])
def test_min_snr_weights_are_the_references(gamma, kind, predicts):
    snr_B = diffusion.snr(diffusion.alphas_cumprod())[T]
    ours = losses.min_snr_weight(snr_B, gamma, predicts=predicts)
    assert torch.allclose(ours, recorded("min_snr", f"gamma{gamma}_{kind}"), rtol=1e-5)


def test_noising_is_the_references():
    ours = diffusion.add_noise(noising("x"), noising("n"), recorded("noising", "t"))
    assert torch.allclose(ours, noising("noisy"), atol=1e-6)


def test_the_velocity_is_the_references():
    ours = diffusion.target(
        noising("x"), noising("n"), recorded("noising", "t"), predicts=Prediction.V
    )
    assert torch.allclose(ours, noising("velocity"), atol=1e-6)


def test_an_epsilon_model_is_asked_for_the_noise():
    noise = noising("n")
    ours = diffusion.target(
        noising("x"), noise, recorded("noising", "t"), predicts=Prediction.EPSILON
    )
    assert ours is noise


def test_noise_and_latents_follow_from_noisy_latents_and_velocity():
    latents, noise, t_B = noising("x"), noising("n"), recorded("noising", "t")
    noisy = diffusion.add_noise(latents, noise, t_B)
    velocity = diffusion.target(latents, noise, t_B, Prediction.V)
    kept = diffusion.alphas_cumprod()[t_B].view(-1, 1, 1, 1)
    assert torch.allclose(kept.sqrt() * noisy - (1 - kept).sqrt() * velocity, latents, atol=1e-5)
    assert torch.allclose((1 - kept).sqrt() * noisy + kept.sqrt() * velocity, noise, atol=1e-5)


def test_offset_noise_is_the_references():
    with np.load(GOLDEN / "noise.npz") as arrays:
        noise, draw, expected = (
            torch.from_numpy(arrays[name]) for name in ("noise", "draw", "out_offset_0p1")
        )
    ours = diffusion.offset_noise(noise, draw[:, :, 0, 0], 0.1)
    assert torch.allclose(ours, expected, atol=1e-6)


def test_offset_noise_has_the_references_moments():
    moments = NOISE["moments"]["offset_0.1"]
    count = 1500
    noise = diffusion.draw_normal((count, 4, 32, 32), 1, "noise")
    ours = diffusion.offset_noise(noise, diffusion.draw_normal((count, 4), 1, "offset"), 0.1)
    assert ours.mean().item() == pytest.approx(0, abs=0.005)
    within = ours.flatten(1).var(dim=1).mean().item()
    assert within == pytest.approx(moments["mean_within_sample_var"], rel=0.01)
    of_means = ours.mean((2, 3)).var().item()
    assert of_means == pytest.approx(moments["var_of_channel_means"], rel=0.1)
    lag = (ours[..., 1:] * ours[..., :-1]).mean().item()
    assert lag == pytest.approx(moments["lag1_horizontal_product"], rel=0.1)


def test_draws_belong_to_their_address_for_good():
    # Pinned: with other numbers, an older run could not be resumed.
    drawn = [diffusion.draw_timestep(7, "t", number, 0) for number in range(6)]
    assert drawn == [217, 57, 144, 958, 650, 35]
    first = diffusion.draw_normal((4,), 7, "noise", 0, 0)
    assert first.tolist() == pytest.approx(
        [-0.6274036765, 1.9165679216, -0.1923699081, 0.9768537283], rel=1e-6
    )
    next_one = diffusion.draw_normal((4,), 7, "noise", 1, 0)
    assert next_one.tolist() == pytest.approx(
        [1.0814356804, 0.6972210407, 0.6111560464, 0.6668422222], rel=1e-6
    )


def test_draws_do_not_touch_torchs_own_dice():
    before = torch.random.get_rng_state()
    diffusion.draw_normal((4,), 7, "noise", 0, 0)
    diffusion.draw_timestep(7, "t", 0, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_timesteps_reach_from_0_to_999_and_are_all_alike():
    drawn = np.array([diffusion.draw_timestep(1, "t", number, 0) for number in range(20_000)])
    assert (drawn.min(), drawn.max()) == (0, 999)
    counts = np.bincount(drawn // 100, minlength=10)
    assert counts.min() > 1850
    assert counts.max() < 2150


def test_different_addresses_draw_independently():
    many = torch.stack([diffusion.draw_normal((64,), 3, "noise", n, 0) for n in range(200)])
    assert many.mean().item() == pytest.approx(0, abs=0.03)
    assert many.std().item() == pytest.approx(1, abs=0.03)
    overlap = (many[:-1] * many[1:]).mean(1)
    assert overlap.abs().max() < 0.6


def test_zero_terminal_snr_ends_in_pure_noise_as_the_reference_does():
    ours = diffusion.alphas_cumprod(zero_terminal_snr=True)
    theirs = torch.tensor(RECORDED["zero_terminal"]["alphas_cumprod"])
    assert ours[-1] == 0
    assert torch.allclose(ours[T], theirs, atol=1e-6)
    assert min_snr_at_pure_noise() == pytest.approx([1.0, 0.0], abs=1e-6)


def min_snr_at_pure_noise():
    none = torch.zeros(1)
    return [losses.min_snr_weight(none, 5, predicts=p).item() for p in Prediction]


@pytest.mark.parametrize(("name", "offset", "scale"), [
    ("out_adaptive_0p05_0p1", 0.05, 0.1), ("out_adaptive_neg_0p05_m0p2", 0.05, -0.2),
])  # fmt: skip
def test_adaptive_offset_noise_is_the_references(name, offset, scale):
    with np.load(GOLDEN / "noise.npz") as arrays:
        latents, noise, draw, expected = (
            torch.from_numpy(arrays[key]) for key in ("latents", "noise", "draw", name)
        )
    strength_BC = diffusion.adapted_offset(latents, offset, scale)
    ours = diffusion.offset_noise(noise, draw[:, :, 0, 0], strength_BC)
    assert torch.allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize(("name", "discount"), [("6_0.3", 0.3), ("10_0.8", 0.8)])
def test_multires_noise_is_the_references(name, discount):
    with np.load(GOLDEN / "noise.npz") as arrays:
        noise = torch.from_numpy(arrays["noise"])
        draws = [torch.from_numpy(arrays[f"multires_{name}_level{level}"]) for level in range(4)]
        expected = torch.from_numpy(arrays[f"multires_{name}_out"])
    levels = NOISE[f"multires_{name}_levels"]
    sides = list(diffusion.multires_sides(16, 16, [level["r"] for level in levels]))
    assert sides == [(level["h"], level["w"]) for level in levels]
    ours = diffusion.multires_noise(noise, draws, discount=discount)
    assert torch.allclose(ours, expected, atol=1e-5)
    assert ours.std().item() == pytest.approx(1, abs=1e-5)


def test_timesteps_keep_within_their_bounds():
    drawn = {diffusion.draw_timestep(1, "t", n, 0, least=10, end=13) for n in range(200)}
    assert drawn == {10, 11, 12}


def test_a_uniform_draw_belongs_to_its_address():
    drawn = [diffusion.draw_uniform(2, 4, 7, "r", n) for n in range(500)]
    assert drawn == [diffusion.draw_uniform(2, 4, 7, "r", n) for n in range(500)]
    assert 2 <= min(drawn) < 2.05
    assert 3.95 < max(drawn) < 4
