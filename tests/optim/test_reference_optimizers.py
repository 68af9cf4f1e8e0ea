"""Every row of the menu is the optimizer that sd-scripts calls, and hands on its arguments."""

import argparse

import pytest
import torch

from kit import catalog
from kit.catalog.lr_schedules import ScheduleParams
from kit.errors import SettingsError
from kit.optim import making
from kit.optim.making import build_optimization
from kit.settings.optimizer_args import parse_optimizer_args
from tests.catalog.test_optimizers import CPU, groups_of
from tests.optim.test_dadapt import ARGUMENTS as ADAPTING
from tests.optim.test_dadapt import alike, learn, start

# The class that sd-scripts calls, what it sets by itself, and arguments to hand on.
SAME = {
    "AdamW": ("torch.optim:AdamW", "", "weight_decay=0.1 betas=0.8,0.95 eps=1e-6"),
    "AdamWScheduleFree": (
        "schedulefree:AdamWScheduleFree", "", "warmup_steps=7 weight_decay=0.1 r=0.5"
    ),
    "AdamW8bit": ("bitsandbytes.optim:AdamW8bit", "", "weight_decay=0.1 betas=0.8,0.95"),
    "Adafactor": (
        "transformers.optimization:Adafactor", "relative_step=True",
        "scale_parameter=False clip_threshold=0.5 decay_rate=-0.7",
    ),
    "bitsandbytes.optim.AdEMAMix8bit": (
        "bitsandbytes.optim:AdEMAMix8bit", "", "alpha=3.0 betas=0.8,0.95,0.99"
    ),
    "bitsandbytes.optim.PagedAdEMAMix8bit": (
        "bitsandbytes.optim:PagedAdEMAMix8bit", "", "alpha=3.0 weight_decay=0.1"
    ),
    "Lion8bit": ("bitsandbytes.optim:Lion8bit", "", "weight_decay=0.1 betas=0.8,0.95"),
    "PagedAdamW8bit": ("bitsandbytes.optim:PagedAdamW8bit", "", "weight_decay=0.1 eps=1e-6"),
    "PagedAdamW32bit": ("bitsandbytes.optim:PagedAdamW32bit", "", "weight_decay=0.1 eps=1e-6"),
    "PagedLion8bit": ("bitsandbytes.optim:PagedLion8bit", "", "weight_decay=0.1"),
    "Prodigy": (
        "prodigyopt:Prodigy", "",
        "decouple=True weight_decay=0.45 d_coef=2 use_bias_correction=True safeguard_warmup=True",
    ),
    "prodigyplus.ProdigyPlusScheduleFree": (
        "prodigyplus:ProdigyPlusScheduleFree", "", "d_coef=0.5 prodigy_steps=20 use_speed=True"
    ),
    "pytorch_optimizer.CAME": ("pytorch_optimizer:CAME", "", "weight_decay=0.1 betas=0.8,0.9,0.99"),
    "RAdamScheduleFree": ("schedulefree:RAdamScheduleFree", "", "betas=0.8,0.95 r=0.5"),
    "SGDNesterov": (
        "torch.optim:SGD", "nesterov=True momentum=0.9", "weight_decay=0.1 momentum=0.5"
    ),
    "SGDNesterov8bit": (
        "bitsandbytes.optim:SGD8bit", "nesterov=True momentum=0.9", "momentum=0.5"
    ),
    "SGDScheduleFree": ("schedulefree:SGDScheduleFree", "", "momentum=0.8 warmup_steps=7"),
}  # fmt: skip
OWN = {"Lion", *ADAPTING}


def test_every_row_is_the_same_class_or_compared_by_numbers():
    missing = catalog.OPTIMIZERS.keys() - SAME.keys() - OWN
    assert not missing, f"{missing}: write sd-scripts' class of that name into SAME, or compare it"
    assert SAME.keys() | OWN == catalog.OPTIMIZERS.keys()


def made(name, given, weights, rate=1.0, **more):
    asked = {
        "lr_scheduler": "constant",
        "schedule_params": ScheduleParams(100),
        "device": CPU,
        **more,
    }
    groups = groups_of(weights, rate)
    return build_optimization(groups, optimizer_type=name, optimizer_args=given, **asked)


def options(optimizer) -> list[dict]:
    """What each group was told; bitsandbytes keeps some of it in the optimizer's own args."""
    told = vars(getattr(optimizer, "args", None) or argparse.Namespace())
    left_out = ("params", "name", "lr", "initial_lr")
    return [
        {**told, **{key: value for key, value in group.items() if key not in left_out}}
        for group in optimizer.param_groups
    ]


@pytest.mark.parametrize("name", SAME)
def test_a_row_calls_the_references_class_with_the_arguments(name, monkeypatch):
    code, sets, given = SAME[name]
    pytest.importorskip(code.partition(":")[0])
    monkeypatch.setattr(making, "_cannot_run", lambda *_: "")  # paging is not needed to be built
    told = []
    for arguments in ("", given):
        optimizer = made(name, arguments, start()).optimizer
        kind = catalog.load(code)
        assert isinstance(optimizer, kind)
        asked = {**parse_optimizer_args(sets), **parse_optimizer_args(arguments)}
        rate = None if "relative_step" in asked else 1.0
        reference = kind([{"params": start()[:2]}, {"params": start()[2:]}], lr=rate, **asked)
        if hasattr(reference, "train"):
            reference.train()  # as sd-scripts does
        told.append(options(optimizer))
        assert told[-1] == options(reference)
    assert told[0] != told[1]


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("given", ["", "weight_decay=0.1 betas=0.95,0.98"])
def test_lion_is_the_references(given, warmup):
    """bitsandbytes has it in 32 bits, sd-scripts calls lion-pytorch: the same to the last bit."""
    lion = pytest.importorskip("lion_pytorch").Lion
    rates = [1e-3 * (min(1.0, step / warmup) if warmup else 1.0) for step in range(60)]
    mine, other = start(), start()
    optimizer = made("Lion", given, mine, rate=1e-3).optimizer
    asked = parse_optimizer_args(given)
    reference = lion([{"params": other[:2]}, {"params": other[2:]}], lr=1e-3, **asked)
    draws = [torch.Generator().manual_seed(2) for _ in range(2)]
    for own, weights, drawn in ((optimizer, mine, draws[0]), (reference, other, draws[1])):
        for step, rate in enumerate(rates):
            slow, fast = own.param_groups
            slow["lr"], fast["lr"] = rate / 2 if step < 40 else 0.0, rate
            for weight in weights:
                weight.grad = (weight.detach() - 1) / 100 + torch.randn(
                    weight.shape, generator=drawn
                ) / 1000
            own.step()
    alike(mine, other)
    assert not torch.equal(mine[0], start()[0])


@pytest.mark.parametrize("name", [name for name, row in catalog.OPTIMIZERS.items() if row.one_rate])
@pytest.mark.parametrize("rates", [(0.5, 1.0), (0.0, 1.0)])
def test_a_schedule_that_gives_two_rates_is_refused_where_one_is_learnt(name, rates):
    optimizer = made(name, "", weights := start()).optimizer
    learn(optimizer, weights, [1.0])
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    before = [weight.detach().clone() for weight in weights]
    with pytest.raises(SettingsError, match=f"at one rate.*{rates[0]:g} and {rates[1]:g}"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))


def test_lion_refuses_decay_by_the_gradient():
    with pytest.raises(SettingsError, match="decouple"):
        made("DAdaptLion", "decouple=False", start())


def test_what_the_plan_says_of_cames_bound_is_so():
    """Squares that only grow are their own bound, so it should change little."""
    pytest.importorskip("pytorch_optimizer")
    moved = {}
    for given in ("", "ams_bound=True"):
        for length in (1e-2, 1e-4):
            weights = torch.nn.Parameter(torch.zeros(8)), torch.nn.Parameter(torch.zeros(8, 4))
            optimizer = made("pytorch_optimizer.CAME", given, weights, rate=1e-3).optimizer
            for _ in range(10):
                for weight in weights:
                    weight.grad = torch.full_like(weight, length)
                optimizer.step()
            moved[given, length] = float(weights[0].detach().norm())
    assert moved["", 1e-4] == pytest.approx(moved["", 1e-2])
    assert moved["ams_bound=True", 1e-4] < 0.2 * moved["ams_bound=True", 1e-2]
