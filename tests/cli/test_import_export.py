"""`kit import`, `kit export`, and foreign files in the place of run.toml."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kit.cli import main
from kit.exchange import load_any
from kit.lorafile.metadata import public_settings
from kit.settings import Settings
from tests.support.pictures import folder_of

PRESETS = Path(__file__).parents[1] / "golden" / "gui_presets"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with six images in images/10_cat."""
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "images", {"10_cat": [(64, 64)] * 6})
    return tmp_path


def planned(capsys, *words):
    """The plan's numbers, and what is told beside them."""
    assert main(["plan", *words, "--json"]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_import_prints_the_report_and_writes_what_is_understood(folder, capsys):
    preset = PRESETS / "sd15 - EDG_LoraOptiSettings.json"
    assert main(["import", str(preset), "--toml", "new/run.toml"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("sd15 - EDG_LoraOptiSettings.json (kohya_ss GUI): 63 keys, ")
    for key in json.loads(preset.read_text("utf-8")):
        assert f"\n  {key}" in out
    assert Settings.load("new/run.toml") == load_any(preset)[0]


def test_export_writes_both_and_tells_what_is_lost(folder, capsys):
    Path("run.toml").write_text('caption_prefix = "a photo"\nepoch = 3\n')
    assert main(["export", "run.toml", "--kohya-json", "a.json", "--sd-scripts", "b.toml"]) == 0
    out = capsys.readouterr().out
    assert "written: a.json" in out
    assert "! caption_prefix = a photo: the GUI has no such setting" in out
    assert out.endswith("written: b.toml\n")
    assert load_any("a.json")[0].basic.epoch == 3
    assert load_any("b.toml")[0].captions.caption_prefix == "a photo"


def test_export_without_a_place_is_refused(folder, capsys):
    assert main(["export"]) == 2
    assert "--kohya-json" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_told(folder, capsys):
    Path("file").write_text("")
    assert main(["export", "--kohya-json", "file/a.json"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_foreign_file_is_planned_and_its_report_goes_beside(folder, capsys):
    values = {"epoch": 4, "train_data_dir": "images", "max_resolution": "64,64", "optimzer": "x"}
    Path("old.json").write_text(json.dumps(values))
    plan, told = planned(capsys, "old.json")
    assert plan["epochs"] == 4
    assert "optimzer = x: no setting of the kohya_ss GUI; did you mean optimizer?" in told
    assert "epoch" not in told  # what is simply taken is not worth a line here


def test_a_command_line_is_planned(folder, capsys):
    Path("train.txt").write_text(
        "accelerate launch train_network.py --train_data_dir images \\\n"
        "  --resolution 64 --max_train_epochs 2 --network_module networks.lora --min_bucket_reso 64"
    )
    plan, told = planned(capsys, "train.txt")
    assert plan["epochs"] == 2
    assert "network_dim = 4" in told


def test_what_is_refused_stops_until_a_change_settles_it(folder, capsys):
    values = {"optimizer": "Banana", "train_data_dir": "images", "max_resolution": "64"}
    Path("old.json").write_text(json.dumps(values))
    assert main(["plan", "old.json"]) == 2
    assert "Banana" in capsys.readouterr().err
    planned(capsys, "old.json", "--set", "optimizer_type=AdamW")


def test_a_lora_file_is_planned_again(folder, capsys):
    made = Settings().replace(train_data_dir="/home/a/images", resolution="64", epoch=3, seed=5)
    recipe = {"lorakit_settings": json.dumps(public_settings(made))}
    save_file({"lora_unet_x.alpha": np.ones(1, np.float32)}, "cat.safetensors", recipe)
    plan, _ = planned(capsys, "cat.safetensors")
    assert (plan["epochs"], plan["seed"]) == (3, 5)


def test_a_lora_whose_images_are_elsewhere_says_so(folder, capsys):
    made = Settings().replace(train_data_dir="/home/a/gone", resolution="64")
    recipe = {"lorakit_settings": json.dumps(public_settings(made))}
    save_file({"lora_unet_x.alpha": np.ones(1, np.float32)}, "cat.safetensors", recipe)
    assert main(["plan", "cat.safetensors"]) == 2
    err = capsys.readouterr().err
    assert "not on this machine:\n  train_data_dir = gone" in err
    planned(capsys, "cat.safetensors", "--set", "train_data_dir=images")


def test_presets_are_listed_and_shown_as_a_difference(folder, capsys):
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 29
    assert lines[0].startswith("sd1-subject-8gb")
    Path("run.toml").write_text("epoch = 3\nnetwork_dim = 16\n")
    assert main(["presets", "run.toml", "--preset", "sd1-subject-8gb"]) == 0
    out = capsys.readouterr().out
    assert "\nepoch: 3 -> 10\n" in out
    assert "network_dim" not in out


def test_a_preset_counts_more_than_the_file_and_less_than_a_change(folder, capsys):
    Path("run.toml").write_text('train_data_dir = "images"\nepoch = 3\ntrain_batch_size = 9\n')
    words = ["run.toml", "--preset", "sd1-subject-16gb", "--set", "resolution=64"]
    plan, _ = planned(capsys, *words)
    assert (plan["epochs"], plan["images"]) == (10, 6)
    plan, _ = planned(capsys, *words, "--set", "epoch=2")
    assert plan["epochs"] == 2
    assert main(["plan", "--preset", "sd1-subjekt-16gb"]) == 2
    assert "did you mean sd1-subject-16gb" in capsys.readouterr().err


def test_a_preset_settles_what_its_file_cannot(folder, capsys):
    values = {"optimizer": "Banana", "train_data_dir": "images", "max_resolution": "64"}
    Path("old.json").write_text(json.dumps(values))
    planned(capsys, "old.json", "--preset", "sd1-subject-8gb", "--set", "resolution=64")


def test_import_into_a_file_keeps_what_is_not_mentioned(folder, capsys):
    mine = Settings().replace(train_data_dir="images", output_name="mine", network_dim=77)
    Path("run.toml").write_text(mine.to_toml(), "utf-8")
    Path("old.json").write_text(json.dumps({"network_dim": 4}), "utf-8")
    assert main(["import", "old.json", "--toml", "run.toml"]) == 0
    assert "stays as it was there" in capsys.readouterr().out
    assert Settings.load("run.toml") == mine.replace(network_dim=4)


def test_importing_what_is_for_something_else_writes_nothing(folder, capsys):
    flux = json.dumps({"LoRA_type": "Flux1", "flux1_checkbox": True, "network_dim": 4})
    Path("flux.json").write_text(flux, "utf-8")
    assert main(["import", "flux.json", "--toml", "run.toml"]) == 2
    assert capsys.readouterr().out.startswith("flux.json (kohya_ss GUI): Flux1 is for another")
    assert not Path("run.toml").exists()
    Path("run.toml").write_text("no settings = [", "utf-8")
    Path("old.json").write_text(json.dumps({"network_dim": 4}), "utf-8")
    assert main(["import", "old.json", "--toml", "run.toml"]) == 2
    assert Path("run.toml").read_text("utf-8") == "no settings = ["
    assert main(["plan", "flux.json", "--set", "train_data_dir=images"]) == 2
    assert "another model family" in capsys.readouterr().err


def test_what_set_settles_is_not_told_as_refused(folder, capsys):
    Path("old.json").write_text(json.dumps({"random_crop": True, "cache_latents": True}), "utf-8")
    words = ["old.json", "--set", "train_data_dir=images", "--set", "cache_latents=false"]
    _, err = planned(capsys, *words)
    assert "refused" not in err
