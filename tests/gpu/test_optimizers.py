"""Updates over flat buffers on a CUDA device, beside those of single weights.

The CPU's tests (tests/optim/test_flat.py) say what else must hold.
"""

import pytest
import torch
from torch.nn import Parameter

from kit.adapters.param_groups import Group
from kit.catalog.lr_schedules import ScheduleParams
from kit.optim.making import build_optimization

pytestmark = [pytest.mark.gpu]

SHAPES = ((8, 320), (64, 80), (5, 3, 3, 3), (64, 65), (1280, 8), (8, 1280))


def learnt(name, given, *, flat):
    """Weights after some steps, of which one weight has no gradient in some."""
    device, draws = torch.device("cuda"), torch.Generator().manual_seed(1)
    weights = [Parameter(torch.randn(s, generator=draws).to(device)) for s in SHAPES]
    own = build_optimization(
        (Group("textencoder", 1e-3, tuple(weights[:2])), Group("unet", 1e-4, tuple(weights[2:]))),
        optimizer_type=name,
        optimizer_args=given,
        lr_scheduler="constant",
        schedule_params=ScheduleParams(40),
        device=device,
        flat=flat,
    )
    assert own.notices == ()
    for step in range(8):
        for number, weight in enumerate(weights):
            gradient = torch.randn(weight.shape, generator=draws).to(device)
            weight.grad = None if number == 3 and step in (3, 4) else gradient
        own.optimizer.step()
        own.optimizer.zero_grad()
    return [weight.detach().cpu() for weight in weights], own.optimizer.state_dict()["state"]


@pytest.mark.parametrize("name", ["AdamW8bit", "Lion", "Lion8bit"])
@pytest.mark.parametrize("given", ["", "weight_decay=0.1"])
def test_bitsandbytes_weights_and_states_are_those_of_single_ones_in_every_bit(name, given):
    (mine, kept), (theirs, expected) = (learnt(name, given, flat=flat) for flat in (True, False))
    assert all(torch.equal(*pair) for pair in zip(mine, theirs, strict=True))
    for number, state in expected.items():
        inner = state["__bnb_optimizer_quant_state__"]
        own = kept[number]["__bnb_optimizer_quant_state__"]
        assert inner.keys() == own.keys()
        assert all(torch.equal(own[name], value) for name, value in inner.items())


def test_adamw_in_one_kernel_moves_weights_as_torchs():
    (mine, _), (theirs, _) = (learnt("AdamW", "weight_decay=0.1", flat=f) for f in (True, False))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_a_scaler_sees_one_gradient_and_an_overflow_in_it():
    device = torch.device("cuda")
    weights = tuple(Parameter(torch.ones(64, 64, device=device)) for _ in range(3))
    own = build_optimization(
        (Group("unet", 1e-3, weights),),
        optimizer_type="AdamW",
        optimizer_args="",
        lr_scheduler="constant",
        schedule_params=ScheduleParams(40),
        device=device,
    )
    scaler = torch.amp.GradScaler("cuda", init_scale=8.0)
    for bad in (False, True):
        before = [weight.detach().clone() for weight in weights]
        scaler.scale(sum(weight.square().sum() for weight in weights)).backward()
        if bad:
            weights[1].grad[3, 5] = torch.inf
        with own.optimizer.as_one():
            scaler.unscale_(own.optimizer)
        if not bad:
            assert all(torch.equal(w.grad, 2 * w) for w in weights)
        scaler.step(own.optimizer)
        scaler.update()
        own.optimizer.zero_grad()
        same = [torch.equal(*pair) for pair in zip(before, weights, strict=True)]
        assert same == [bad] * 3
    assert scaler.get_scale() == 4.0
