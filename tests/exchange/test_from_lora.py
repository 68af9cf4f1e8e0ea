"""A LoRA file makes its run again."""

import shutil

import pytest

from kit import planning
from kit.cli import main
from kit.exchange import load_any
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, lora, run, same, toy_settings


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1")


def test_a_lora_trained_again_from_its_own_file_is_the_same(model, tmp_path):
    images = draw_images(tmp_path / "images")
    asked = toy_settings(
        model, images, tmp_path / "a", seed=None, min_snr_gamma=5,
        max_train_steps=3, optimizer_args="weight_decay=0.1", shuffle_caption=True, lr_warmup=50,
        additional_parameters="--network_dim=3",
    )  # fmt: skip
    run(asked)
    (tmp_path / "sent").mkdir()
    shutil.copy(tmp_path / "a" / "toy.safetensors", tmp_path / "sent")
    found, report = load_any(tmp_path / "sent" / "toy.safetensors")
    assert set(report.missing) == {"pretrained_model_name_or_path", "train_data_dir"}
    places = {"train_data_dir": images, "pretrained_model_name_or_path": model}
    again = found.replace(**places, output_dir=tmp_path / "b")
    assert again.basic.seed  # the one that was drawn
    assert planning.plan(again).total_steps == 3
    run(again)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_on_its_own_machine_the_command_of_the_readme_trains_it_again(
    model, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    images = draw_images(tmp_path / "deep" / "down" / "images")
    run(toy_settings(model, images, "output", output_name="cat", max_train_steps=2))
    shutil.copy("output/cat.safetensors", "cat.safetensors")
    for file, name in (("cat.safetensors", "cat2"), ("output/cat.safetensors", "cat3")):
        assert main(["train", file, "--set", f"output_name={name}"]) == 0
        err = capsys.readouterr().err
        assert "its paths are those of output/cat.run/run.toml" in err
        assert "not on this machine" not in err
        output = tmp_path / "output"
        assert same(lora(output, "cat"), lora(output, name))


def test_a_run_of_other_settings_beside_it_does_not_lend_its_paths(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = draw_images(tmp_path / "images")
    run(toy_settings(model, images, "output", output_name="cat", max_train_steps=1))
    settings = toy_settings(model, images, "output", output_name="cat", network_dim=3)
    (tmp_path / "output" / "cat.run" / "run.toml").write_text(settings.to_toml(), "utf-8")
    found, report = load_any("output/cat.safetensors")
    assert found.network.network_dim == 2
    assert report.notes == ()
    assert report.missing["pretrained_model_name_or_path"] == model.name
