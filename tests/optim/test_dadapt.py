"""Our D-Adaptation is dadaptation 3.2's, but for what it does on purpose; older states are read."""

import importlib

import pytest
import torch
from torch.nn import Parameter

from kit import catalog
from kit.catalog.lr_schedules import ScheduleParams
from kit.optim.dadapt import DAdaptAdan, DAdaptSGD
from kit.optim.making import build_optimization, restore_optimizer
from kit.settings.optimizer_args import parse_optimizer_args
from tests.catalog.test_optimizers import CPU, copied, groups_of

STEPS, WARMUP = 60, 10
EXPERIMENTAL = {"DAdaptAdamPreprint", "DAdaptAdanIP"}
# The second ones are those of kohya's presets where they have any, then with decay by the gradient.
ARGUMENTS = {
    "DAdaptation": ("", "decouple=True weight_decay=0.2 betas=0.9,0.99 growth_rate=1.02"),
    "DAdaptAdaGrad": ("", "weight_decay=0.1 momentum=0.9 d0=1e-4 growth_rate=1.2"),
    "DAdaptAdam": (
        "",
        "decouple=True weight_decay=0.2 betas=0.9,0.99 growth_rate=1.02",
        "decouple=True weight_decay=0.1 betas=0.9,0.91",
        "decouple=True weight_decay=0.01 d0=0.0001 use_bias_correction=True",
        "weight_decay=0.1 eps=1e-6",
    ),
    "DAdaptAdan": ("", "no_prox=True weight_decay=0.1 d0=1e-4"),
    "DAdaptAdanIP": ("", "no_prox=True weight_decay=0.1 d0=1e-4", "growth_rate=1.2"),
    "DAdaptAdamPreprint": ("", "weight_decay=0.1 d0=1e-4"),
    "DAdaptLion": ("", "weight_decay=0.1 betas=0.95,0.98 d0=1e-4"),
    "DAdaptSGD": ("", "weight_decay=0.1 momentum=0.9 d0=1e-4"),
}
CASES = [
    (name, given, warmup)
    for name, several in ARGUMENTS.items()
    for given in several
    for warmup in (0, WARMUP)
    if not warmup or name != "DAdaptSGD"  # dadaptation divides by zero at its rate of 0
]


def reference(name):
    """The class of dadaptation that sd-scripts calls for a row."""
    name = "DAdaptAdamPreprint" if name == "DAdaptation" else name
    pytest.importorskip("dadaptation")
    module = "dadaptation.experimental" if name in EXPERIMENTAL else "dadaptation"
    return getattr(importlib.import_module(module), name)


def start():
    """As a LoRA: some weights start at random, one at zero, one is a convolution."""
    draws = torch.Generator().manual_seed(1)
    return (
        Parameter(torch.randn(16, 20, generator=draws)),
        Parameter(torch.zeros(16, 8)),
        Parameter(torch.randn(8, 4, 3, 3, generator=draws)),
    )


def noisy_bowl(weight, draws):
    return (weight.detach() - 1) / 100 + torch.randn(weight.shape, generator=draws) / 1000


def learn(optimizer, weights, rates, draws=None):
    """The d after every step at these rates."""
    draws, found = draws or torch.Generator().manual_seed(2), []
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        for weight in weights:
            weight.grad = noisy_bowl(weight, draws)
        optimizer.step()
        found.append(float(optimizer.param_groups[0]["d"]))
    return found


def ours(name, given, weights):
    asked = {"lr_scheduler": "constant", "schedule_params": ScheduleParams(100), "device": CPU}
    made = build_optimization(
        groups_of(weights, 1.0), optimizer_type=name, optimizer_args=given, **asked
    )
    return made.optimizer


def theirs(name, given, weights):
    groups = [{"params": weights[:2]}, {"params": weights[2:]}]
    return reference(name)(groups, lr=1.0, **parse_optimizer_args(given))


def alike(mine, other):
    for one, two in zip(mine, other, strict=True):
        largest = float(two.detach().abs().max())
        assert torch.allclose(one, two, rtol=1e-6, atol=1e-6 * largest)


@pytest.mark.parametrize(("name", "given", "warmup"), CASES)
def test_d_and_weights_are_the_references(name, given, warmup):
    rates = [min(1.0, step / warmup) if warmup else 1.0 for step in range(STEPS)]
    mine, other = start(), start()
    found = learn(ours(name, given, mine), mine, rates)
    expected = learn(theirs(name, given, other), other, rates)
    assert found == pytest.approx(expected, rel=1e-6)
    assert found[-1] > 2 * found[0]
    alike(mine, other)


def test_every_row_is_compared():
    adapting = {name for name, row in catalog.OPTIMIZERS.items() if row.code.startswith("kit.")}
    assert set(ARGUMENTS) == adapting


def test_sgd_waits_for_a_rate_and_then_is_the_references():
    mine, other = start(), start()
    learn(optimizer := ours("DAdaptSGD", "", mine), mine, [0.0, 0.0])
    alike(mine, start())
    draws = [torch.Generator().manual_seed(4) for _ in range(2)]
    rates = [(step + 1) / 10 for step in range(10)]
    found = learn(optimizer, mine, rates, draws[0])
    expected = learn(theirs("DAdaptSGD", "", other), other, rates, draws[1])
    assert found == pytest.approx(expected, rel=1e-6)
    alike(mine, other)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_rate_of_0_moves_nothing_at_the_start_and_later(name):
    weights = start()
    optimizer = ours(name, "", weights)
    for rates in ([0.0], [1.0] * 5):
        before = [weight.detach().clone() for weight in weights]
        d = learn(optimizer, weights, rates)[-1]
        assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True)) == (
            not rates[0]
        )
    before = [weight.detach().clone() for weight in weights]
    assert learn(optimizer, weights, [0.0]) == [d]
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_group_at_a_rate_of_0_is_left_alone_and_does_not_count(name):
    """pytorch-optimizer takes the first group's rate for all; dadaptation moves both."""
    mine, alone = start(), start()
    first, second = ours(name, "", mine), ours(name, "", alone)
    for _ in range(10):
        for weight in (*mine, *alone):
            weight.grad = (weight.detach() - 1) / 100
        for weight in alone[:2]:
            weight.grad = None
        first.param_groups[0]["lr"] = 0.0
        # make_learning's guard refuses two rates; the class itself is right about a 0.
        first._optimizer_step_pre_hooks.clear()
        first.step()
        second.step()
    assert first.param_groups[1]["d"] == second.param_groups[1]["d"]
    assert all(torch.equal(a, b) for a, b in zip(mine, alone, strict=True))
    assert torch.equal(mine[0], start()[0])
    assert not torch.equal(mine[2], start()[2])


def test_two_rates_are_refused():
    optimizer = DAdaptAdan([{"params": [Parameter(torch.ones(3))], "lr": rate} for rate in (1, 2)])
    with pytest.raises(ValueError, match="at one rate"):
        optimizer.step()


def test_weights_without_gradient_stay():
    weight, idle = Parameter(torch.ones(3)), Parameter(torch.ones(3))
    optimizer = DAdaptAdan([weight, idle])
    optimizer.step()
    weight.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(idle, torch.ones(3))
    assert not torch.equal(weight, idle)


# --------------------------------------------------------------------------------- older states


@pytest.mark.parametrize("name", ["DAdaptAdaGrad", "DAdaptAdam", "DAdaptLion", "DAdaptSGD"])
def test_a_state_of_pytorch_optimizers_class_goes_on(name):
    """These rows called that package; where it was right, the run goes on as it did."""
    earlier = getattr(pytest.importorskip("pytorch_optimizer"), name)
    given = {"eps": 1e-6} if name == "DAdaptAdaGrad" else {}
    old, new = start(), start()
    first = earlier(
        [{"params": old[:2], "name": "a"}, {"params": old[2:], "name": "b"}], lr=1.0, **given
    )
    draws = torch.Generator().manual_seed(2)
    learn(first, old, [1.0] * 8, draws)
    kept = copied(first.state_dict())
    with torch.no_grad():
        for weight, value in zip(new, old, strict=True):
            weight.copy_(value)
    second = ours(name, "", new)
    restore_optimizer(second, kept)
    assert second.param_groups[0]["name"] == "a"
    states = [draws.get_state() for _ in range(2)]
    found = []
    for optimizer, weights, state in ((first, old, states[0]), (second, new, states[1])):
        draws.set_state(state)
        found.append(learn(optimizer, weights, [1.0] * 5, draws))
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize("name", ["DAdaptAdan", "DAdaptAdanIP", "DAdaptAdamPreprint"])
def test_a_state_of_our_earlier_class_goes_on(name):
    """It had no `moved` beside a weight and no `k` in a group."""
    straight, resumed = start(), start()
    first = ours(name, "", straight)
    draws = torch.Generator().manual_seed(2)
    learn(first, straight, [1.0] * 5, draws)
    kept = copied(first.state_dict())
    for state in kept["state"].values():
        state.pop("moved", None)
    for group in kept["param_groups"]:
        del group["k"]
    with torch.no_grad():
        for weight, value in zip(resumed, straight, strict=True):
            weight.copy_(value)
    second = ours(name, "", resumed)
    restore_optimizer(second, kept)
    state = draws.get_state()
    learn(first, straight, [1.0] * 5, draws)
    draws.set_state(state)
    learn(second, resumed, [1.0] * 5, draws)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


@pytest.mark.parametrize("wrong", [{"betas": (0.9, 0.9)}, {"d0": 0}, {"betas": (0.9, 2, 0.9)}])
def test_our_adan_refuses_what_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DAdaptAdan([Parameter(torch.ones(3))], **wrong)


def test_a_momentum_of_1_is_refused():
    with pytest.raises(ValueError, match="momentum"):
        DAdaptSGD([Parameter(torch.ones(3))], momentum=1.0)
