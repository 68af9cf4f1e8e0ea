"""What a run uses where several settings decide."""

import inspect

import pytest
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from kit.settings import Settings, effective
from kit.settings.rules import notices


@pytest.mark.parametrize(
    ("kernel", "mem_eff_attn", "keeps"),
    [("none", False, True), ("none", True, False), ("sdpa", False, False), ("sdpa", True, False)],
)
def test_attention_keeps_its_matrices_only_without_any_kernel(kernel, mem_eff_attn, keeps):
    settings = Settings().replace(cross_attention=kernel, mem_eff_attn=mem_eff_attn)
    assert effective.keeps_attention_matrices(settings.memory) is keeps


@pytest.mark.parametrize("schedule", [OneCycleLR, CyclicLR])
def test_the_momentum_that_is_told_is_torchs_own(schedule):
    defaults = inspect.signature(schedule).parameters
    least, most = defaults["base_momentum"].default, defaults["max_momentum"].default
    settings = Settings().replace(
        lr_scheduler_type=schedule.__name__,
        lr_scheduler_args="max_lr=1e-3 base_lr=1e-4 total_steps=100",
    )
    assert f"between {least} and {most};" in "\n".join(notices(settings))
    settings = settings.replace(
        lr_scheduler_args="max_lr=1e-3 base_lr=1e-4 total_steps=100 base_momentum=0.5"
    )
    assert f"between 0.5 and {most};" in "\n".join(notices(settings))
