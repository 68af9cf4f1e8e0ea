import pytest

from kit import catalog
from kit.settings import Settings
from kit.ui.form.inactive import SWITCHES, idle_settings


def idle(**changes):
    return idle_settings(Settings().replace(**changes).flat())


def test_a_standard_lora_has_no_use_for_convolution_settings():
    assert {"conv_dim", "conv_alpha"} <= set(idle(LoRA_type="Standard"))
    assert not {"conv_dim", "conv_alpha"} & set(idle(LoRA_type="Kohya LoCon"))


def test_only_the_schedules_that_use_them_open_cycles_and_power():
    assert "lr_scheduler_num_cycles" not in idle(lr_scheduler="cosine_with_restarts")
    assert "lr_scheduler_power" in idle(lr_scheduler="cosine_with_restarts")
    assert "lr_scheduler_power" not in idle(lr_scheduler="polynomial")


def test_a_constant_rate_does_not_warm_up():
    assert {"lr_warmup", "lr_warmup_steps"} <= set(idle(lr_scheduler="constant"))
    assert not {"lr_warmup", "lr_warmup_steps"} & set(idle(lr_scheduler="constant_with_warmup"))


def test_the_reason_names_the_menu_and_what_is_chosen():
    assert idle(lr_scheduler="linear")["lr_scheduler_power"] == "LR Scheduler is linear"


@pytest.mark.parametrize("lora_type", catalog.LORA_TYPES)
@pytest.mark.parametrize("schedule", catalog.SCHEDULES)
def test_nothing_that_a_chosen_row_uses_is_without_effect(lora_type, schedule):
    used = {*catalog.LORA_TYPES[lora_type].uses, *catalog.SCHEDULES[schedule].uses}
    switches = {name: True for name in SWITCHES.values() if name in used}
    assert not used & set(idle(LoRA_type=lora_type, lr_scheduler=schedule, **switches))


def test_the_axis_of_dora_waits_for_dora():
    off, on = (idle(LoRA_type="LyCORIS/LoHa", dora_wd=dora_wd) for dora_wd in (False, True))
    assert off["wd_on_output"] == "DoRA Weight Decompose is off"
    assert "wd_on_output" not in on
    assert idle(LoRA_type="Standard")["wd_on_output"] == "LoRA type is Standard"
