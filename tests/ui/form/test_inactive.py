import pytest

from kit import catalog
from kit.settings import Settings
from kit.ui.form.form import Form
from kit.ui.form.inactive import idle_settings


def idle(**changes):
    return idle_settings(Settings().replace(**changes))


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
    why = idle(lr_scheduler="linear")["lr_scheduler_power"]
    assert why == "LR Scheduler = linear does not use it"


@pytest.mark.parametrize("lora_type", catalog.LORA_TYPES)
@pytest.mark.parametrize("schedule", catalog.SCHEDULES)
def test_nothing_that_a_chosen_row_uses_is_without_effect(lora_type, schedule):
    used = {*catalog.LORA_TYPES[lora_type].uses, *catalog.SCHEDULES[schedule].uses}
    found = idle(LoRA_type=lora_type, lr_scheduler=schedule)
    menus = ("LoRA type = ", "LR Scheduler = ")
    assert not [name for name in used if found.get(name, "").startswith(menus)]


def test_the_axis_of_dora_waits_for_dora():
    off, on = (idle(LoRA_type="LyCORIS/LoHa", dora_wd=dora_wd) for dora_wd in (False, True))
    assert off["wd_on_output"] == "DoRA Weight Decompose is off"
    assert "wd_on_output" not in on
    assert idle(LoRA_type="Standard")["wd_on_output"] == "LoRA type = Standard does not use it"


def test_the_bounds_of_buckets_wait_for_buckets():
    names = {"min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale"}
    assert names <= set(idle(enable_bucket=False))
    assert names & set(idle(bucket_no_upscale=True)) == {"min_bucket_reso", "max_bucket_reso"}
    assert not names & set(idle(bucket_no_upscale=False))


def test_additional_parameters_count():
    form = Form()
    assert form.fields["huber_c"].control.disabled
    form.fields["additional_parameters"].value = "--loss_type huber"
    assert not form.fields["huber_c"].control.disabled
    form.fields["additional_parameters"].value = "--loss_type"  # which is told as a problem
    assert form.fields["huber_c"].control.disabled


def test_what_some_subset_reads_is_open(tmp_path):
    form = Form()

    def grey(config):
        file.write_text(config, "utf-8")
        form.fields["dataset_config"].value = ""
        form.fields["dataset_config"].value = str(file)
        return {name for name, field in form.fields.items() if field.idle}

    file = tmp_path / "data.toml"
    of_both = "[general]\nflip_aug = true\n[[datasets]]\n"
    subset = "[[datasets.subsets]]\nimage_dir = '{}'\n"
    one, two = (subset.format(name) for name in ("one", "two"))
    found = grey(f"{of_both}{one}shuffle_caption = true\n{two}")
    assert {"keep_tokens", "train_data_dir", "flip_aug"} - found == {"keep_tokens"}
    assert "keep_tokens" in grey(f"{of_both}{one}{two}")
    assert "keep_tokens" in grey("nothing")
