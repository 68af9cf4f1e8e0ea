"""Additional parameters count more than the form, and say so."""

import pytest

from kit import planning
from kit.errors import SettingsError
from kit.settings import Settings
from tests.support.pictures import folder_of


@pytest.fixture
def plan(tmp_path):
    folder_of(tmp_path / "images", {"10_cat": [(64, 64)] * 6})
    base = {
        "train_data_dir": str(tmp_path / "images"),
        "output_dir": str(tmp_path / "out"),
        "resolution": "64",
    }

    def planned(text, **changes):
        return planning.plan(Settings().replace(**base, **changes, additional_parameters=text))

    return planned


def test_they_count_more_than_the_settings(plan):
    made = plan("--network_dim=16 --max_train_epochs 3 --network_train_unet_only", network_dim=4)
    assert made.settings.network.network_dim == 16
    assert made.epochs == 3
    assert made.settings.basic.text_encoder_lr == 0
    assert made.settings.extra.additional_parameters == ""
    assert "network_dim = 16 from additional_parameters counts, not 4" in made.notices
    assert "text_encoder_lr = 0.0 from additional_parameters counts, not 5e-05" in made.notices


def test_what_stands_twice_is_told(plan):
    made = plan("--network_dim 8 --network_dim 16")
    told = "network_dim = 8: given again with another value, which counts: 16"
    assert f"additional_parameters: {told}" in made.notices


def test_what_the_shipped_presets_have_there_is_understood(plan):
    made = plan('--lr_scheduler_type "CosineAnnealingLR" --lr_scheduler_args "T_max=30"')
    assert made.settings.basic.lr_scheduler_type == "CosineAnnealingLR"
    assert made.settings.basic.lr_scheduler_args == "T_max=30"


def test_the_run_goes_on_with_its_own_file(plan):
    """The effective settings make the same plan again."""
    made = plan("--network_dim=16")
    again = planning.plan(made.settings)
    assert again.run.fingerprint == made.run.fingerprint


def test_what_has_no_effect_is_told(plan):
    made = plan("--cache_info --multires_noise_discount=0.3")
    assert [n for n in made.notices if n.startswith("additional_parameters: cache_info")]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("--network_dimm 3", "did you mean network_dim?"),
        ("--network_dim=-3", "whole number"),
        ('--output_name "cat', "close every quote"),
        ("network_dim=3", "holds no --argument"),
        ("--network_module networks.lora_flux", "another model family"),
    ],
)
def test_what_is_not_understood_is_a_problem(plan, text, word):
    with pytest.raises(SettingsError) as caught:
        plan(text, random_crop=True)
    problems = caught.value.problems
    assert any(p.startswith("[extra] additional_parameters: ") and word in p for p in problems)
    assert any("random_crop" in problem for problem in problems)  # all at once


@pytest.mark.parametrize("argument", ["--wandb_api_key abc123", "--huggingface_token=abc123"])
def test_a_secret_is_refused_and_not_repeated(argument):
    with pytest.raises(SettingsError) as caught:
        Settings().replace(additional_parameters=f"--seed 1 {argument}")
    assert "environment" in str(caught.value)
    assert "abc123" not in str(caught.value)
