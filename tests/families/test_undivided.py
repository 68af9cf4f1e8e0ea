"""Blocks hand on what they would divide by 1; every bit stays."""

import copy

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D

from kit.bench.launches import aten_calls
from kit.families.undivided import One, spare_divisions
from tests.support.parts import load_tiny
from tests.support.tiny import write_tiny


@pytest.mark.parametrize("key", ["sd1", "sdxl"])
def test_a_u_net_computes_the_same_bits_without_its_divisions(tmp_path, key):
    divides = load_tiny(write_tiny(tmp_path / "model", key, thin=True))
    spares = copy.deepcopy(divides)
    spare_divisions(spares.unet)
    found = []
    for family in (divides, spares):
        latents = torch.linspace(-1, 1, 2 * 4 * 8 * 8).view(2, 4, 8, 8).requires_grad_()

        def both_ways(family=family, latents=latents):
            ids = family.tokenize(["a ball", "a dog"], max_token_length=75)
            crops = torch.tensor([[64, 64, 0, 0, 64, 64]] * 2)
            words = family.condition(family.encode_tokens(ids, clip_skip=1), crops)
            prediction = family.predict(latents, torch.tensor([10, 900]), words)
            (gradient,) = torch.autograd.grad(prediction.square().sum(), latents)
            found.append((prediction.detach(), gradient))

        found.append(aten_calls(both_ways)["div"])
    (one, gradient), divisions, (other, same), left = found
    assert torch.equal(one, other)
    assert torch.equal(gradient, same)
    factors = [m for m in spares.unet.modules() for v in vars(m).values() if isinstance(v, One)]
    assert divisions - left == 2 * len(factors) > 0


def test_other_factors_stay():
    block = ResnetBlock2D(in_channels=32, temb_channels=8, output_scale_factor=2.0)
    spare_divisions(block)
    assert block.output_scale_factor == 2.0


def test_it_is_a_number_to_whoever_looks():
    assert float(One()) == 1.0
    assert repr(One()) == "1.0"
