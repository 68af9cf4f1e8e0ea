"""What an optimizer's row takes moves the weights; what its class has and leaves aside is told."""

import warnings

import pytest
import torch
from torch.nn import Parameter

from kit import catalog
from kit.settings import Settings
from kit.settings.optimizer_args import parse_optimizer_args
from kit.settings.rules import problems

STEPS = 40
# What an argument needs beside it to matter, and a value that is not its default.
TOGETHER = {
    "weight_decouple": "weight_decay=0.1",
    "fixed_decay": "weight_decay=0.1",
    "decouple": "weight_decay=0.1",
    "no_prox": "weight_decay=0.1",
    "weight_decay_by_lr": "weight_decay=0.1",
    "warmup_init": "relative_step=True",
    "split_groups_mean": "split_groups=True",
    "dampening": "nesterov=False",
}
VALUES = {
    "growth_rate": "1.01", "t_alpha": "10", "t_beta3": "10", "slice_p": "3", "d0": "1e-4",
    "beta3": "0.5", "beta1": "0.9", "warmup_steps": "20", "prodigy_steps": "20",
    "schedulefree_c": "50", "min_8bit_size": "100000", "clip_threshold": "0.1",
    "decay_rate": "-0.5", "eps1": "1e-2", "eps2": "1e-2", "momentum": "0.5",
}  # fmt: skip
ELSEWHERE = {
    (
        "prodigyplus.ProdigyPlusScheduleFree",
        "factored_fp32",
    ): "matters beside fp16 and bf16 weights",
    ("SGDNesterov8bit", "nesterov"): "the plan tells that it does nothing",
    ("DAdaptLion", "decouple"): "its class says that it is always on",
}
PAIRS = [
    (name, argument)
    for name, row in catalog.OPTIMIZERS.items()
    for argument in parse_optimizer_args(row.takes)
    if (name, argument) not in ELSEWHERE
]
UNUSED = [
    (name, argument, default)
    for name, row in catalog.OPTIMIZERS.items()
    for argument, default in parse_optimizer_args(row.unused).items()
]


def other(argument, default):
    if argument in VALUES:
        return parse_optimizer_args(f"x={VALUES[argument]}")["x"]
    if isinstance(default, bool):
        return not default
    if isinstance(default, tuple):
        return tuple(0.8 * each if each > 0.1 else 100 * each + 0.1 for each in default)
    return default * 0.3 if default else 0.1


def moved(name, **arguments):
    """Two weights after some steps at a rate that warms up and falls again."""
    row = catalog.OPTIMIZERS[name]
    draws = torch.Generator().manual_seed(0)
    # bitsandbytes keeps no 8-bit state of fewer numbers
    pair = [Parameter(0.02 * torch.randn(64, 64, generator=draws)) for _ in range(2)]
    arguments = {**row.defaults, **arguments}
    own_rate = row.controls_lr_with(arguments) == "rate"
    rate = None if own_rate else row.advised_lr or 1e-3
    pytest.importorskip(row.code.partition(":")[0])
    groups = [{"params": [weight]} for weight in pair]
    optimizer = catalog.load(row.code, row.needs)(groups, lr=rate, **arguments)
    getattr(optimizer, "train", lambda: None)()
    aims = [torch.randn(64, 64, generator=draws) for _ in pair]
    for step in range(STEPS):
        for group in optimizer.param_groups:
            if not own_rate:
                group["lr"] = rate * min((step + 1) / 10, (STEPS - step) / 20)
        for length, weight, aim in zip((1, 5), pair, aims, strict=True):
            noise = torch.randn(64, 64, generator=draws)
            weight.grad = length * (weight.detach() - aim + 0.3 * noise)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Paged optimizers are not supported")
            optimizer.step()
    getattr(optimizer, "eval", lambda: None)()
    return torch.cat([weight.detach() for weight in pair])


@pytest.mark.parametrize("name, argument", PAIRS)
def test_what_a_row_takes_moves_the_weights(name, argument):
    row = catalog.OPTIMIZERS[name]
    takes = parse_optimizer_args(row.takes)
    beside = parse_optimizer_args(TOGETHER.get(argument, ""))
    beside = {k: v for k, v in beside.items() if k in takes}
    changed = {**beside, argument: other(argument, takes[argument])}
    assert not torch.equal(moved(name, **beside), moved(name, **changed)), changed


@pytest.mark.parametrize("name, argument, default", UNUSED)
def test_what_a_class_has_and_does_not_use_is_refused_by_name(name, argument, default):
    other_value = other(argument, default)
    assert problems_with(name, f"{argument}={default}") == []
    (problem,) = problems_with(name, f"{argument}={other_value}")
    assert f"optimizer_args: {name} has {argument} and does not use it" in problem
    try:
        assert torch.equal(moved(name, **{argument: other_value}), moved(name))
    except ValueError as error:
        assert argument in str(error)


def test_the_sentence_names_an_optimizer_that_uses_it():
    (problem,) = problems_with("PagedAdamW8bit", "amsgrad=True")
    assert problem.endswith("leave it out, or choose AdamW")


def problems_with(name, arguments):
    settings = Settings().replace(optimizer_type=name, optimizer_args=arguments)
    return [text for text in problems(settings) if "optimizer_args" in text]
