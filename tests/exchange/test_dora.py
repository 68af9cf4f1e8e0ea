"""DoRA's axis on its way in and out: kept where it is named or in the file, else told."""

import json

import pytest
import torch

from kit.basemodel.magnitudes import follow_file
from kit.exchange import Verdict, load_any
from kit.exchange.exporting import export_gui, export_sd_scripts
from kit.exchange.networks import arguments_of
from kit.lorafile.tensors import write_lora
from kit.settings import Settings

DORA = {"LoRA_type": "LyCORIS/LoCon", "dora_wd": True}
LINE = "train_network.py --network_module lycoris.kohya --network_args dora_wd=True"


@pytest.mark.parametrize("axis", [True, False])
def test_a_named_axis_is_kept(axis):
    settings, _ = load_any(f"{LINE} wd_on_output={axis}")
    assert settings.network.dora_wd
    assert settings.network.wd_on_output is axis
    assert arguments_of(settings)["wd_on_output"] == str(axis)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (LINE, "network_args.dora_wd"),
        (json.dumps({"LoRA_type": "LyCORIS/LoCon", "dora_wd": True}), "dora_wd"),
    ],
)
def test_where_none_is_named_the_report_says_which_it_is(text, key):
    settings, report = load_any(text)
    assert settings.network.dora_wd
    assert settings.network.wd_on_output is False
    (line,) = [line for line in report.lines if line.key == key]
    assert line.verdict is Verdict.TRANSLATED
    assert "wd_on_output = true" in line.told


def test_without_dora_no_axis_is_written():
    assert "wd_on_output" not in arguments_of(Settings().replace(LoRA_type="LyCORIS/LoCon"))


@pytest.mark.parametrize("axis", [True, False])
def test_sd_scripts_is_told_the_axis_and_says_it_back(axis):
    text, notices = export_sd_scripts(Settings().replace(**DORA, wd_on_output=axis))
    assert load_any(text)[0].network.wd_on_output is axis
    assert not any("wd_on_output" in notice for notice in notices)


def test_that_the_gui_trains_the_other_axis_is_told():
    _, notices = export_gui(Settings().replace(**DORA))
    assert any("wd_on_output = false" in notice and "wrongly" in notice for notice in notices)


def lora(path, shape, metadata):
    name = "lora_unet_mid_block_attentions_0_proj_in"
    tensors = {
        f"{name}.dora_scale": torch.ones(shape),
        f"{name}.lora_up.weight": torch.ones(16, 4),
        f"{name}.lora_down.weight": torch.ones(4, 16),
    }
    write_lora(path, tensors, metadata, save_as="safetensors")
    return path


@pytest.mark.parametrize("shape", [(16, 1), (1, 16), (16, 1, 1, 1), (1, 16, 1, 1)])
@pytest.mark.parametrize("ours", [True, False])
def test_a_loras_recipe_has_the_axis_of_its_tensors(tmp_path, shape, ours):
    """Files of older versions of ours, and LyCORIS', do not name it."""
    recipe = {"lorakit_settings": json.dumps(DORA)}
    args = json.dumps({"algo": "locon", "dora_wd": True})
    theirs = {"ss_network_module": "lycoris.kohya", "ss_network_args": args}
    settings, _ = load_any(lora(tmp_path / "a.safetensors", shape, recipe if ours else theirs))
    assert settings.network.dora_wd
    assert settings.network.wd_on_output is (shape[0] == 16)


@pytest.mark.parametrize("shape", [(16, 1), (1, 16)])
@pytest.mark.parametrize("asked", [True, False])
def test_a_plan_follows_the_file_that_is_gone_on_from(tmp_path, shape, asked):
    path = lora(tmp_path / "a.safetensors", shape, {})
    before = Settings().replace(**DORA, network_weights=str(path), wd_on_output=asked)
    settings, notices = follow_file(before)
    assert settings.network.wd_on_output is (shape[0] == 16)
    assert len(notices) == (asked is not (shape[0] == 16))
