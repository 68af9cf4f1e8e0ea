"""What an optimizer or a schedule says only in a step is said before a model is loaded."""

import pytest
import torch

from kit import catalog
from kit.catalog.lr_schedules import ScheduleParams
from kit.errors import SettingsError
from kit.training.network_setup import check_optimizer


def check(name="AdamW", given="", rate=1.0, **changes):
    asked = {
        "optimizer_type": name,
        "optimizer_args": given,
        "lr_scheduler": "cosine",
        "schedule_params": ScheduleParams(10),
        "lr_scheduler_type": "",
        "lr_scheduler_args": "",
    }
    check_optimizer({"unet": rate, "te": rate}, asked | changes)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("AdamWScheduleFree", "eps=none", "NoneType"),
        ("AdamWScheduleFree", "betas=0,0.999", "zero"),  # only when it is averaged
        ("AdamWScheduleFree", "betas=0.9,1.0", "no number"),
        ("AdamWScheduleFree", "weight_decay=much", "str"),
        ("RAdamScheduleFree", "r=none", "NoneType"),
    ],
)
def test_what_the_first_step_would_say_is_said_before(name, given, said):
    pytest.importorskip("schedulefree")
    with pytest.raises(SettingsError, match=f"optimizer_args: {name} cannot learn.*{said}"):
        check(name, given)


def test_a_schedule_that_fails_in_the_middle_is_refused_before():
    """A comma for a point: torch makes it, and multiplies with the pair at step 4."""
    with pytest.raises(SettingsError, match="lr_scheduler_args: StepLR fails at step 4"):
        check(lr_scheduler_type="StepLR", lr_scheduler_args="step_size=4 gamma=0,5")
    check(lr_scheduler_type="StepLR", lr_scheduler_args="step_size=4 gamma=0.5")


def test_the_whole_menu_passes_and_draws_nothing():
    for name, row in catalog.OPTIMIZERS.items():
        pytest.importorskip(row.code.partition(":")[0])
        before = torch.get_rng_state()
        check(name, rate=row.advised_lr or 1.0)
        assert torch.equal(torch.get_rng_state(), before), name
