"""What a class, or its first steps, would refuse is refused by the plan, which loads no torch."""

import math
import warnings

import pytest
import torch
from torch.nn import Parameter

from kit import catalog
from kit.optim.making import _floats
from kit.settings.optimizer_args import parse_optimizer_args
from kit.settings.optimizer_values import wrong_values
from tests.optim.test_arguments_used import ELSEWHERE, TOGETHER, other

# Words, signs, ends of ranges, too few and too many.
ODD = ("fast", "-1", "0", "1", "1.5", "None", "0.9", "0.9,0.99", "0.9,0.99,0.999", "1e999")


def breaks(name, arguments):
    """What the class, or a step of it, says against its arguments; "" where nothing."""
    row = catalog.OPTIMIZERS[name]
    arguments = {**row.defaults, **{key: _floats(value) for key, value in arguments.items()}}
    own_rate = row.controls_lr_with(arguments) == "rate"
    weights = [Parameter(torch.ones(3, 2)), Parameter(torch.ones(2))]
    try:
        kind = catalog.load(row.code, row.needs)
        optimizer = kind([{"params": weights}], lr=None if own_rate else 1e-3, **arguments)
        if row.needs != "bitsandbytes":  # whose steps want a GPU
            if row.controls_lr == "schedule" and hasattr(optimizer, "train"):
                optimizer.train()
            for _ in range(2):
                for weight in weights:
                    weight.grad = torch.full_like(weight, 1e-2)
                optimizer.step()
        return "" if all(weight.isfinite().all() for weight in weights) else "not finite"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("name", catalog.OPTIMIZERS)
def test_what_breaks_is_refused_by_the_plan(name, capsys):
    late = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for argument, default in parse_optimizer_args(catalog.OPTIMIZERS[name].takes).items():
            for text in ODD:
                value = parse_optimizer_args(f"x={text}")["x"]
                value = math.inf if text == "1e999" else value
                if not list(wrong_values(name, {argument: value})) and (
                    why := breaks(name, {argument: value})
                ):
                    late.append(f"{argument}={text}: {why}")
            assert not list(wrong_values(name, {argument: default}))
            if (name, argument) not in ELSEWHERE:
                beside = parse_optimizer_args(TOGETHER.get(argument, ""))
                possible = {argument: other(argument, default), **beside}
                assert not list(wrong_values(name, possible))
    capsys.readouterr()  # some greet
    assert not late, "refused only once torch is loaded, or in a step"


def test_none_is_a_value_where_the_class_knows_it():
    given = {"eps": None, "betas": (0.9, None)}
    assert not list(wrong_values("prodigyplus.ProdigyPlusScheduleFree", given))
    assert len(list(wrong_values("AdamW", given))) == 2
