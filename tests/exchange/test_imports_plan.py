"""What is imported is planned; what is for something else changes nothing; the rest stays."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kit import planning
from kit.exchange import load_any
from kit.lorafile.metadata import public_settings
from kit.settings import Settings
from tests.support.pictures import folder_of

GOLDEN = Path(__file__).parents[1] / "golden"
PRESETS = sorted((GOLDEN / "gui_presets").glob("*.json"), key=lambda path: path.name)
# What stands in the GUI's other SD and SDXL presets and was refused once, by the preset's name.
ELSEWHERE_IN_PRESETS = {
    "SDXL - 1 image LoRA v1.0": {
        "sdxl": True,
        "min_snr_gamma": 5,
        "debiased_estimation_loss": True,
    },
    "sd15 - LoKr v1.1": {"noise_offset_type": "Multires", "adaptive_noise_scale": 0.005},
    "sd15 - LoKr v2.0": {"bucket_reso_steps": 1},
    "locon-dadaptation-sdxl": {"bucket_reso_steps": 1, "sdxl": True},
    "sd15 - EDG_LoHaOptiSettings": {"max_resolution": "512,650", "enable_bucket": False},
}


def plan_of(settings, tmp_path):
    images = tmp_path / "images"
    if not images.exists():
        folder_of(images, {"4_cat": [(96, 64), (64, 64)]})
    return planning.plan(
        settings.replace(train_data_dir=str(images), output_dir=str(tmp_path / "out"))
    )


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_shipped_preset_plans_once_there_are_images(path, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.planning.writes.free_at", lambda _: 2**40)  # one writes 82 GB
    settings, report = load_any(path)
    assert report.problems() == []
    assert report.refused == ()
    assert plan_of(settings, tmp_path).total_steps > 0


@pytest.mark.parametrize("name", ELSEWHERE_IN_PRESETS)
def test_what_the_other_presets_ask_for_plans_too_and_is_told(name, tmp_path):
    values = ELSEWHERE_IN_PRESETS[name]
    settings, report = load_any(json.dumps(values))
    assert report.problems() == []
    assert report.refused == ()
    told = [*plan_of(settings, tmp_path).notices, *map(str, report.lines)]
    assert any("both weigh" in t or "no effect" in t or "multiples of 8" in t for t in told)


@pytest.mark.parametrize(("sdxl", "step"), [(False, 64), (True, 32)])
def test_a_bucket_step_that_no_latent_can_follow_becomes_the_usual_one(sdxl, step):
    settings, _ = load_any(json.dumps({"bucket_reso_steps": 1, "sdxl": sdxl}))
    assert settings.images.bucket_reso_steps == step


def test_the_report_shows_what_the_plan_would_refuse():
    _, report = load_any(json.dumps({"random_crop": True, "cache_latents": True, "epoch": 2}))
    [problem] = report.refused
    assert problem.startswith("[images] random_crop:")
    lines = list(report.text())
    assert lines[1].startswith("a training with these settings would be refused")
    assert lines[2] == f"  {problem}"
    assert report.problems() == []  # --set may still settle it
    assert not any("refused" in line for line in report.text(with_checks=False))


def test_additional_parameters_are_checked_as_the_plan_checks_them():
    _, report = load_any(json.dumps({"additional_parameters": "--random_crop"}))
    assert any("random_crop" in problem for problem in report.refused)


FORM = Settings().replace(
    network_dim=77, train_data_dir="/photos", output_name="mine", sample_prompts="a cat",
    min_snr_gamma=5, caption_dropout_rate=0.2,
)  # fmt: skip
COMFYUI = {"last_node_id": 9, "last_link_id": 9, "nodes": [], "links": [], "groups": []}
PROJECT = """
[project]
name = "a"
version = "1"
requires-python = ">=3.11"
[tool]
x = 1
"""


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (json.dumps({"LoRA_type": "Flux1", "flux1_checkbox": True, "network_dim": 16}), "Flux1"),
        (json.dumps({"network_dim": 16, "sd3_checkbox": True}), "Stable Diffusion 3"),
        (json.dumps(COMFYUI), "none of the settings"),
        (json.dumps(["a cat", "a dog"]), "a list"),
        (PROJECT, "none of the settings"),
        ("accelerate launch flux_train_network.py --network_dim 4", "flux_train_network.py"),
        ('network_module = "networks.lora_flux"\nnetwork_dim = 4\n', "networks.lora_flux"),
    ],
)
def test_a_file_of_something_else_says_so_first_and_changes_nothing(tmp_path, text, word):
    file = tmp_path / "file.txt"
    file.write_text(text, "utf-8")
    settings, report = load_any(file, FORM)
    assert settings == FORM
    [line] = report.text()
    assert line.startswith("file.txt")
    assert word in line
    assert line.endswith("nothing is taken from it")
    [problem] = report.problems(settled={"LoRA_type": "Standard"})
    assert word in problem


def lora(tmp_path, metadata):
    path = tmp_path / "cat.safetensors"
    save_file({"lora_unet_x.alpha": np.ones(1, np.float32)}, path, metadata)
    return path


def test_a_lora_of_another_family_changes_nothing(tmp_path):
    told = {"ss_base_model_version": "flux1", "ss_network_dim": "4"}
    settings, report = load_any(lora(tmp_path, told), FORM)
    assert settings == FORM
    assert "flux1 is another model family" in str(report)


def changes(settings):
    """What an import has changed of the form."""
    old, new = FORM.flat(), settings.flat()
    return {name: value for name, value in new.items() if value != old[name]}


def test_the_guis_json_keeps_what_it_does_not_mention():
    settings, _ = load_any(json.dumps({"network_alpha": 4, "min_snr_gamma": 0}), FORM)
    assert changes(settings) == {"network_alpha": 4.0, "min_snr_gamma": 0.0}


def test_a_lora_of_another_trainer_keeps_what_it_does_not_tell(tmp_path):
    told = {"ss_network_alpha": "4", "ss_output_name": "other"}
    settings, _ = load_any(lora(tmp_path, told), FORM)
    assert changes(settings) == {"network_alpha": 4.0, "output_name": "other", "lr_warmup": 0.0}


def test_arguments_of_sd_scripts_keep_places_and_what_shapes_no_number():
    text = 'network_module = "networks.lora"\noutput_name = "theirs"\n'
    settings, report = load_any(text, FORM)
    flat = settings.flat()
    assert flat["output_name"] == "theirs"
    assert flat["train_data_dir"] == "/photos"
    assert flat["sample_prompts"] == "a cat"
    assert (flat["network_dim"], flat["min_snr_gamma"], flat["caption_dropout_rate"]) == (4, 0, 0)
    assert {"network_dim", "min_snr_gamma", "caption_dropout_rate"} <= set(report.assumed)


def test_our_recipe_keeps_places_and_what_shapes_no_number(tmp_path):
    told = {"lorakit_settings": json.dumps(public_settings(Settings().replace(network_alpha=4)))}
    settings, _ = load_any(lora(tmp_path, told), FORM)
    flat = settings.flat()
    assert (flat["network_alpha"], flat["network_dim"], flat["min_snr_gamma"]) == (4, 8, 0)
    assert (flat["train_data_dir"], flat["sample_prompts"]) == ("/photos", "a cat")


def test_our_own_file_says_everything():
    text = "network_dim = 16\n"
    assert load_any(text, FORM)[0] == Settings.of(tomllib.loads(text))


# ------------------------------------------------------------------------------ ss_datasets


def dataset(**changes):
    subset = {"img_count": 3, "keep_tokens": 1, "shuffle_caption": True, "flip_aug": False}
    return {
        "is_dreambooth": True,
        "batch_size_per_device": 4,
        "resolution": [768, 512],
        "enable_bucket": True,
        "min_bucket_reso": 320,
        "max_bucket_reso": 1536,
        "subsets": [subset, subset],
        **changes,
    }


def of_datasets(tmp_path, *datasets):
    told = {"ss_network_dim": "4", "ss_datasets": json.dumps(datasets)}
    return load_any(lora(tmp_path, told))


def test_what_all_data_sets_of_a_lora_had_is_taken(tmp_path):
    settings, report = of_datasets(tmp_path, dataset(), dataset())
    flat = settings.flat()
    assert flat["resolution"] == "768,512"
    assert flat["train_batch_size"] == 4
    assert (flat["enable_bucket"], flat["min_bucket_reso"], flat["max_bucket_reso"]) == (
        True, 320, 1536,
    )  # fmt: skip
    assert (flat["keep_tokens"], flat["shuffle_caption"], flat["flip_aug"]) == (1, True, False)
    assert report.problems() == []


def test_what_the_data_sets_of_a_lora_had_each_is_told(tmp_path):
    other = dataset(resolution=[1024, 1024], subsets=[{"keep_tokens": 3, "shuffle_caption": True}])
    settings, report = of_datasets(tmp_path, dataset(), other)
    flat = settings.flat()
    assert (flat["resolution"], flat["keep_tokens"]) == ("512,512", 0)
    assert (flat["train_batch_size"], flat["shuffle_caption"]) == (4, True)
    told = {line.key: line.told for line in report.lines}
    assert "the data sets differ (768,512 and 1024,1024)" in told["ss_datasets.resolution"]
    assert "the data sets differ (1 and 3)" in told["ss_datasets.keep_tokens"]


@pytest.mark.parametrize("text", ["", "{", "3", "[3]", '[{"subsets": [1]}]', "[" * 9999])
def test_damaged_data_sets_are_left_alone(tmp_path, text):
    settings, report = load_any(lora(tmp_path, {"ss_network_dim": "4", "ss_datasets": text}))
    assert settings.network.network_dim == 4
    assert report.problems() == []
