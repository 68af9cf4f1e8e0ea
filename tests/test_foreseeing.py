"""What the plan says of files that a training would refuse."""

import pytest

from kit import demo
from kit.modelfile.foreseeing import foreseen_refusals
from kit.settings import Settings


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
