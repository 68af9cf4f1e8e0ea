import json
from pathlib import Path

import pytest

from kit.catalog import lora_shapes
from kit.planning.lora_size import layer_shapes, network_size, stored_otherwise
from kit.settings import Settings

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lora_keys.json").read_text("utf-8"))
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


LOKR = {"LoRA_type": "LyCORIS/LoKr", "use_tucker": True, "factor": 4, "network_dim": 4}


def test_the_plan_tells_how_much_larger_whole_factors_are():
    """Recomputed from the listed layers: what a file holds less what is trained, in fp16."""
    settings = Settings().replace(**LOKR, sdxl=True)
    size = network_size(settings, "sdxl")
    more = 0
    for row in layer_shapes("sdxl"):
        if row.kernel == 3:
            high, wide = (lora_shapes.split(n, 4)[1] for n in (row.outputs, row.inputs))
            if max(high, wide) / 2 > 4:
                parts = 4 * 4 * 9 + 4 * (high + wide)
                more += row.count * ((high * wide * 9 - parts) * 2 - 2 * 130)
    assert size.more == more > 1e6
    (notice,) = stored_otherwise(settings)
    assert f"{more / 1e6:.3g} MB larger ({size.bytes / 1e6:.3g} MB)" in notice
    parts = network_size(settings.replace(use_tucker=False), "sdxl")
    assert parts.more == 0
    assert not [*stored_otherwise(settings.replace(use_tucker=False))]
    assert not [*stored_otherwise(settings.replace(LoRA_type="LyCORIS/LoHa"))]
