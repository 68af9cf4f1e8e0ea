"""What the plan says of files that a training would refuse."""

import pytest
import torch
from safetensors.torch import save_file

from kit import demo
from kit.basemodel.preflight import foreseen_refusals
from kit.settings import Settings
from tests.support.ldm import write_single_file


def told(**changes):
    return " ".join(foreseen_refusals(Settings().replace(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pretrained_model_name_or_path": str(demo.BASE)},
        {"pretrained_model_name_or_path": "owner/name", "vae": "owner/vae"},
        {"pretrained_model_name_or_path": "owner/name/file.safetensors"},
        {"pretrained_model_name_or_path": "https://huggingface.co/owner/name"},
    ],
)
def test_what_may_well_work_is_not_mentioned(changes):
    assert told(**changes) == ""


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"pretrained_model_name_or_path": "nope.safetensors"}, "pretrained_model_name_or_path"),
        ({"pretrained_model_name_or_path": "/nope/model"}, "pretrained_model_name_or_path"),
        ({"vae": "nope.safetensors"}, "vae"),
        ({"network_weights": "nope.safetensors"}, "network_weights"),
    ],
)
def test_a_file_that_is_not_there_is_told_with_its_setting(changes, names):
    assert f"{names} = {next(iter(changes.values()))} is not on this machine" in told(**changes)


def test_what_can_be_done_about_a_wrong_name_is_told_with_it():
    wrong = told(pretrained_model_name_or_path="/nope/model")
    assert "correct the path, or give a Hub id (owner/name) or a link" in wrong
    assert "write it with https://" in told(pretrained_model_name_or_path="http://a.b/c")


def test_a_file_that_is_something_else_is_told(tmp_path):
    (tmp_path / "run.toml").write_text("network_dim = 4")
    assert "pretrained_model_name_or_path: " in told(
        pretrained_model_name_or_path=str(tmp_path / "run.toml")
    )
    assert "is not a diffusers model" in told(pretrained_model_name_or_path=str(tmp_path))


def test_a_claim_that_the_file_contradicts_is_told():
    assert "sdxl is on" in told(pretrained_model_name_or_path=str(demo.BASE), sdxl=True)
    assert "train_inpainting is on" in told(
        pretrained_model_name_or_path=str(demo.BASE), train_inpainting=True
    )


def test_a_lora_file_to_go_on_from_is_looked_into(tmp_path):
    cut, whole = tmp_path / "cut.safetensors", tmp_path / "whole.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(4, 8)}, whole)
    cut.write_bytes(whole.read_bytes()[:-16])
    assert told(network_weights=str(whole)) == ""
    assert "network_weights: " in told(network_weights=str(cut))
    assert "is cut short" in told(network_weights=str(cut))
    assert "is a folder, and a LoRA is one file" in told(network_weights=str(tmp_path))


def test_a_base_model_is_no_lora_file(tmp_path):
    base = write_single_file(demo.BASE, tmp_path / "base.safetensors")
    assert "is a base model, not a LoRA" in told(network_weights=str(base))


def test_a_path_with_blanks_around_it_is_looked_into_too():
    assert "sdxl is on" in told(pretrained_model_name_or_path=f" {demo.BASE} ", sdxl=True)
