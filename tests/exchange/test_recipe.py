"""A LoRA file makes its run again."""

import pytest

from kit import planning
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
    found, report = load_any(tmp_path / "a" / "toy.safetensors")
    assert set(report.missing) == {"pretrained_model_name_or_path", "train_data_dir"}
    places = {"train_data_dir": images, "pretrained_model_name_or_path": model}
    again = found.replace(**places, output_dir=tmp_path / "b")
    assert again.basic.seed  # the one that was drawn
    assert planning.plan(again).total_steps == 3
    run(again)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
