"""Convolutions of few places on a CPU: the same numbers by another way, and only where it pays."""

import copy

import pytest
import torch
from torch import nn

from kit.basemodel import detect
from kit.bench.launches import aten_calls
from kit.families import Prediction, few_places
from kit.families.few_places import FewPlacesConv2d, quicken
from kit.families.loading import load_family
from tests.support.tiny import write_tiny


def convolution(inward, outward, kernel=3, stride=1, bias=True):
    torch.manual_seed(0)
    padding = kernel // 2
    layer = nn.Conv2d(inward, outward, kernel, stride=stride, padding=padding, bias=bias)
    return layer.requires_grad_(False)


def both_passes(layer, inputs):
    inputs = inputs.clone().requires_grad_()
    output = layer(inputs)
    (gradient,) = torch.autograd.grad(
        output, inputs, torch.linspace(-1, 1, output.numel()).reshape_as(output)
    )
    return output.detach(), gradient


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("layer", "height", "width"),
    [
        (convolution(128, 1024), 2, 2),
        (convolution(128, 1024, bias=False), 4, 4),
        (convolution(128, 1024, stride=2), 4, 7),
        (convolution(1024, 1024, kernel=1), 2, 3),
        (convolution(1920, 64), 8, 8),
    ],
    ids=["3x3", "no bias", "stride 2", "1x1", "many channels"],
)
def test_it_computes_what_torch_computes(layer, height, width, batch):
    quick = copy.deepcopy(layer)
    quicken(quick)
    inputs = torch.randn(batch, layer.in_channels, height, width)
    expected, found = both_passes(layer, inputs), both_passes(quick, inputs)
    for want, have in zip(expected, found, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-5)
        assert have.is_contiguous()
    assert "im2col" in aten_calls(lambda: quick(inputs))
    assert "convolution" not in aten_calls(lambda: quick(inputs))


def calls(layer, *shape, **options):
    return aten_calls(lambda: layer(torch.randn(*shape, **options)))


def test_many_places_are_left_to_torch():
    layer = convolution(128, 1024)
    quicken(layer)
    assert "convolution" in calls(layer, 1, 128, 9, 8)
    assert "convolution" in calls(layer, 2, 128, 8, 8)
    assert "convolution" not in calls(layer, 1, 128, 8, 8)


def test_small_and_strange_ones_are_left_to_torch():
    small, grouped = convolution(32, 32), nn.Conv2d(2048, 2048, 3, groups=2)
    mirrored = nn.Conv2d(128, 1024, 3, padding=1, padding_mode="reflect")
    same = nn.Conv2d(128, 1024, 3, padding="same")
    for layer in (small, grouped, mirrored, same):
        quicken(layer)
        assert type(layer) is nn.Conv2d


def test_what_learns_or_is_rounded_is_left_to_torch():
    learning = convolution(128, 1024).requires_grad_()
    halved = convolution(128, 1024).bfloat16()
    for layer in (learning, halved):
        quicken(layer)
    assert "convolution" in calls(learning, 1, 128, 2, 2)
    assert "convolution" in calls(halved, 1, 128, 2, 2, dtype=torch.bfloat16)
    frozen = convolution(128, 1024)
    quicken(frozen)
    with torch.autocast("cpu", torch.bfloat16):
        assert frozen(torch.randn(1, 128, 2, 2)).dtype == torch.bfloat16
    weight = learning.weight
    learning(torch.randn(1, 128, 2, 2)).sum().backward()
    assert weight.grad is not None


def test_a_loaded_u_net_takes_it_on_a_cpu_in_fp32_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(few_places, "LEAST_WEIGHTS", 1)
    model = detect(write_tiny(tmp_path / "model", "sd1", thin=True))

    def quick_ones(dtype, base_precision="as_mixed_precision"):
        family = load_family(
            model,
            predicts=Prediction.EPSILON,
            device=torch.device("cpu"),
            dtype=dtype,
            vae_dtype=dtype,
            base_precision=base_precision,
        )
        return sum(isinstance(part, FewPlacesConv2d) for part in family.unet.modules())

    assert quick_ones(torch.float32) > 10
    assert quick_ones(torch.bfloat16) == 0
