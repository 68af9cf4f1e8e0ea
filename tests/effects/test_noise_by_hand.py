"""From setting to formula: the noise of a batch, computed anew from the plain draws.

Shapes: B batch, C latent channels, h w latent height and width.
"""

import numpy as np
import pytest
import torch

from kit.diffusion import noise
from tests.effects.stage import BASE

OFFSET = {"noise_offset": 0.2}
IP = {"ip_noise_gamma": 0.3}
MULTIRES = {
    "noise_offset_type": "Multires",
    "multires_noise_iterations": 3,
    "multires_noise_discount": 0.6,
}
NOISES = {
    "offset": OFFSET,
    "offset of random strength": {**OFFSET, "noise_offset_random_strength": True},
    "adaptive offset": {**OFFSET, "adaptive_noise_scale": 0.7},
    "multires": MULTIRES,
    "ip": IP,
    "ip of random strength": {**IP, "ip_noise_gamma_random_strength": True},
    "timesteps": {"min_timestep": 200, "max_timestep": 210},
}
MANY = 40


@pytest.fixture(scope="module")
def batches(stage):
    """Plain batches, and those of a case, of the same seed."""

    def made(case):
        asked = stage.settings({**BASE, "train_batch_size": 2, **NOISES.get(case, {})})
        with stage.prepared(asked) as ready:
            return [ready.batch_builder.batch(number) for number in range(MANY)], ready.plan.seed

    plain, _ = made("plain")
    return lambda case: (plain, *made(case))


def normal(batch, name, shape, seed):
    """The draws of a batch, a row for each image."""
    rows = range(len(batch.t_B))
    return torch.stack([noise.draw_normal(shape, seed, name, batch.micro_step, r) for r in rows])


@pytest.mark.parametrize("case", ["offset", "offset of random strength", "adaptive offset"])
def test_an_offset_shifts_every_channel_by_its_draw(batches, case):
    plain, other, seed = batches(case)
    strengths = []
    for before, after in zip(plain, other, strict=True):
        shift_BC = (after.noise_BChw - before.noise_BChw).mean((2, 3))
        share_BC = shift_BC / normal(after, "offset", (4,), seed)
        if case == "adaptive offset":
            wanted_BC = 0.2 + 0.7 * after.latents_BChw.mean((2, 3)).abs()
            assert torch.allclose(share_BC, wanted_BC, rtol=1e-3, atol=1e-4)
        else:
            assert share_BC.std() < 1e-3  # one strength for the batch
            strengths.append(share_BC.mean().item())
    if case == "offset":
        assert strengths == pytest.approx([0.2] * MANY, rel=1e-3)
    elif strengths:
        evenly_drawn(strengths, up_to=0.2)


def evenly_drawn(strengths, *, up_to):
    """Uniform from 0: its mean is half, and both ends are met."""
    assert 0 <= min(strengths) < 0.15 * up_to
    assert 0.85 * up_to < max(strengths) <= up_to
    assert np.mean(strengths) == pytest.approx(up_to / 2, rel=0.3)


@pytest.mark.parametrize("case", ["ip", "ip of random strength"])
def test_what_ip_noise_adds_is_gamma_times_its_draw(batches, case):
    plain, other, seed = batches(case)
    gammas = []
    for before, after in zip(plain, other, strict=True):
        assert torch.equal(before.noise_BChw, after.noise_BChw)  # the target stays
        draw = normal(after, "ip", tuple(after.noise_BChw.shape[1:]), seed)
        gamma = (after.perturbation_BChw / draw).median().item()
        assert torch.allclose(after.perturbation_BChw, gamma * draw, atol=1e-5)
        gammas.append(gamma)
    if case == "ip":
        assert gammas == pytest.approx([0.3] * MANY, rel=1e-4)
    else:
        evenly_drawn(gammas, up_to=0.3)


def test_multires_adds_levels_each_weaker_by_the_discount(batches):
    plain, other, seed = batches("multires")
    for before, after in zip(plain[:8], other, strict=False):
        h, w = before.noise_BChw.shape[2:]
        told = before.noise_BChw.double()
        for level in range(3):
            ratio = noise.draw_uniform(2, 4, seed, "multires ratio", after.micro_step, level)
            sides = max(1, int(h / ratio**level)), max(1, int(w / ratio**level))
            draw = normal(after, f"multires {level}", (4, *sides), seed).double()
            told = told + 0.6**level * torch.nn.functional.interpolate(
                draw, size=(h, w), mode="bilinear"
            )
            if 1 in sides:
                break
        assert torch.allclose(after.noise_BChw.double(), told / told.std(), atol=1e-4)


def test_timesteps_are_drawn_from_least_to_below_most(batches):
    _, other, _ = batches("timesteps")
    drawn = torch.cat([batch.t_B for batch in other]).tolist()
    assert set(drawn) == set(range(200, 210))
