import json
from pathlib import Path

import pytest

from kit.networksize import network_size
from kit.settings import Settings

GOLDEN = json.loads((Path(__file__).parent / "golden" / "lora_keys.json").read_text("utf-8"))
MODELS = {"sd1": "sd15", "sd2": "sd21_linear_proj", "sdxl": "sdxl"}


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("kind", ["Standard", "Kohya LoCon"])
def test_the_size_is_the_reference_networks(family, kind):
    recorded = GOLDEN["models"][
        f"{MODELS[family]}/rank4_{'linear' if kind == 'Standard' else 'conv2'}"
    ]
    settings = Settings().replace(LoRA_type=kind, network_dim=4, conv_dim=2)
    size = network_size(settings, family)
    assert size.layers == recorded["n_keys"] / 3
    assert size.weights == recorded["n_params"] - size.layers  # its alphas are counted there


def test_a_frozen_part_takes_no_room():
    both = network_size(Settings(), "sd1")
    unet = network_size(Settings().replace(text_encoder_lr=0), "sd1")
    assert both.layers - unet.layers == 72
    assert unet.bytes < both.bytes


def test_the_files_size_follows_the_precision():
    half, full = (
        network_size(Settings().replace(save_precision=name), "sdxl") for name in ("fp16", "float")
    )
    assert 1.9 < full.bytes / half.bytes < 2


def test_a_size_from_another_file_is_not_guessed():
    assert network_size(Settings().replace(dim_from_weights=True), "sd1") is None
