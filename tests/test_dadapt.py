"""Our D-Adaptation follows its equations."""

import pytest
import torch
from torch.nn import Parameter

from kit.dadapt import DAdaptAdan, DAdaptAdanIP


def adan_by_hand(weights, grads, *, inner: bool) -> tuple[torch.Tensor, float]:
    """D-Adaptation's Adan in 64 bits, as plain sums over the gradients so far."""
    b1, b2, b3 = 0.98, 0.92, 0.99
    d, numerator, before = 1e-6, 0.0, grads[0]
    m = v = n = s = torch.zeros_like(weights)
    for g in grads:
        ahead, root = g + b2 * (g - before), n.sqrt() + 1e-8
        product = d * float((g * s / root).sum())
        m = b1 * m + d * (1 - b1) * g
        v = b2 * v + d * (1 - b2) * (g - before)
        n = b3 * n + (1 - b3) * ahead**2
        s = b3 * s + d * (1 - b3) * g
        root, length = n.sqrt() + 1e-8, float(s.abs().sum())
        if inner:
            numerator = b3 * numerator + (1 - b3) * product
            guess = 2 * b3 / (1 - b3) * numerator / length
        else:
            numerator = b3 * numerator + (1 - b3) * d**2 * float((g**2 / root).sum())
            guess = (float((s**2 / root).sum()) / (1 - b3) - numerator) / length
        weights = (weights - (m + b2 * v) / root) / (1 + d * 0.02)
        d, before = max(d, guess), g
    return weights, d


@pytest.mark.parametrize(("kind", "inner"), [(DAdaptAdan, False), (DAdaptAdanIP, True)])
def test_our_adan_follows_its_equations(kind, inner):
    draws = torch.Generator().manual_seed(3)
    start = torch.randn(40, generator=draws, dtype=torch.float64)
    grads = [start + 0.1 * torch.randn(40, generator=draws, dtype=torch.float64) for _ in range(40)]
    weight = Parameter(start.clone())
    own = kind([weight])
    for grad in grads:
        weight.grad = grad
        own.step()
    expected, d = adan_by_hand(start, grads, inner=inner)
    assert d > 1e-5
    assert own.param_groups[0]["d"] == pytest.approx(d, rel=1e-9)
    assert torch.allclose(weight.detach(), expected, rtol=1e-9)


def test_a_warm_up_from_zero_and_weights_without_gradient_change_nothing():
    weight, idle = Parameter(torch.ones(3)), Parameter(torch.ones(3))
    own = DAdaptAdan([weight, idle])
    own.step()
    weight.grad = torch.ones(3)
    own.param_groups[0]["lr"] = 0.0
    own.step()
    assert torch.equal(weight, idle)
    own.param_groups[0]["lr"] = 1.0
    own.step()
    assert not torch.equal(weight, idle)


@pytest.mark.parametrize("wrong", [{"betas": (0.9, 0.9)}, {"d0": 0}, {"betas": (0.9, 2, 0.9)}])
def test_our_adan_refuses_what_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DAdaptAdan([Parameter(torch.ones(3))], **wrong)
