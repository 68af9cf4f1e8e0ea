"""What a file is, is told by its content; a LoRA makes its settings again."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kit.errors import ModelError, SettingsError
from kit.exchange import Verdict, load_any
from kit.lorafile.metadata import public_settings
from kit.settings import Settings

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "metadata_example.json").read_text("utf-8")
)
OTHERS = [name for name, value in GOLDEN.items() if isinstance(value, dict) and "ss_seed" in value]
MANY = Settings().replace(
    network_dim=32, unet_lr=None, text_encoder_lr=0, sdxl=False, seed=7, LoRA_type="Kohya LoCon",
    conv_dim=4, optimizer_args="weight_decay=0.1", sample_prompts="a cat\na dog", lr_warmup=0,
    save_every_n_epochs=None, min_snr_gamma=5, noise_offset_type="Multires",
    multires_noise_iterations=6, enable_bucket=False,
)  # fmt: skip


def lora(tmp_path, metadata, name="cat.safetensors"):
    save_file({"lora_unet_x.alpha": np.ones(1, np.float32)}, tmp_path / name, metadata)
    return tmp_path / name


def test_our_own_lora_makes_its_settings_again_exactly(tmp_path):
    recipe = {"lorakit_settings": json.dumps(public_settings(MANY)), "ss_steps": "3"}
    settings, report = load_any(lora(tmp_path, recipe))
    assert settings == MANY
    assert {line.verdict for line in report.lines} == {Verdict.TAKEN}
    assert len(report.lines) == len(MANY.changed())


def test_paths_that_are_not_here_are_told(tmp_path):
    (tmp_path / "here").mkdir()
    ours = Settings().replace(
        train_data_dir="/somewhere/10 cats", pretrained_model_name_or_path="owner/name",
        vae=str(tmp_path / "gone.safetensors"), reg_data_dir=str(tmp_path / "here"),
    )  # fmt: skip
    recipe = {"lorakit_settings": json.dumps(ours.changed())}
    _, report = load_any(lora(tmp_path, recipe))
    assert set(report.missing) == {"train_data_dir", "vae"}
    assert "train_data_dir = /somewhere/10 cats" in str(report)


@pytest.mark.parametrize("name", OTHERS)
def test_a_lora_of_the_reference_tells_what_it_can(tmp_path, name):
    metadata = GOLDEN[name]
    settings, report = load_any(lora(tmp_path, metadata))
    arguments = json.loads(metadata.get("ss_network_args", "{}"))
    assert len(report.lines) == len(metadata) + max(0, len(arguments) - 1)
    assert report.of(Verdict.UNKNOWN) == ()
    assert not report.problems()
    assert settings.basic.seed == int(metadata["ss_seed"])
    assert settings.basic.max_train_steps == int(metadata["ss_max_train_steps"])
    assert settings.basic.learning_rate == float(metadata["ss_learning_rate"])
    assert settings.network.network_dim == int(metadata["ss_network_dim"])
    assert settings.basic.lr_scheduler == metadata["ss_lr_scheduler"]
    assert settings.folders.output_name == metadata["ss_output_name"]
    assert settings.images.enable_bucket is (metadata["ss_enable_bucket"] == "True")
    assert settings.memory.mixed_precision == metadata["ss_mixed_precision"]
    assert settings.network.LoRA_type == ("Kohya LoCon" if "conv_dim" in arguments else "Standard")
    assert settings.basic.optimizer_type == "AdamW"
    assert f"({settings.images.resolution.replace(',', ', ')})" == metadata["ss_resolution"]


def test_an_optimizer_is_known_by_its_class(tmp_path):
    told = {
        "ss_network_module": "networks.lora",
        "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1,betas=(0.9, 0.99))",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_dim": "Dynamic",
        "ss_something_new": "1",
    }
    settings, report = load_any(lora(tmp_path, told))
    assert settings.basic.optimizer_type == "AdamW8bit"
    assert settings.basic.optimizer_args == "weight_decay=0.1 betas=0.9,0.99"
    assert settings.model.sdxl is True
    assert [line.key for line in report.of(Verdict.REFUSED)] == ["ss_network_dim"]
    assert [line.key for line in report.of(Verdict.UNKNOWN)] == ["ss_something_new"]


def test_a_lora_that_says_nothing_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="no ss_"):
        load_any(lora(tmp_path, {"format": "pt"}))
    with pytest.raises(SettingsError, match="no such file"):
        load_any(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelError):
        load_any(tmp_path / "broken.safetensors")


def test_our_own_file_is_read_strictly(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(MANY.to_toml())
    settings, report = load_any(path)
    assert settings == MANY
    assert not report.is_foreign
    path.write_text("network_dimm = 3\n")
    with pytest.raises(SettingsError, match="did you mean network_dim"):
        load_any(path)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.json", "{", "no JSON"),
        ("a.toml", "x = [", "no TOML"),
        ("a.toml", "", "no settings"),
        ("a.toml", "[[datasets]]\nresolution = 512\n", "dataset_config"),
    ],
)
def test_what_is_no_settings_file_is_told(tmp_path, name, content, word):
    (tmp_path / name).write_text(content)
    with pytest.raises(SettingsError, match=word):
        load_any(tmp_path / name)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_any(str(tmp_path / "none.toml"))
    (tmp_path / "x.bin").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(SettingsError, match="is no text"):
        load_any(tmp_path / "x.bin")
