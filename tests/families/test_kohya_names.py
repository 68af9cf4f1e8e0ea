import json
from pathlib import Path

import pytest

from kit.families.kohya_names import (
    sgm_path,
    sgm_position,
    text_encoder_name,
    unet_name,
)

# All module paths of SDXL's U-Net, less the repetitions of its transformer blocks 1 to 8.
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "sdxl_unet_names.json").read_text())


def test_every_path_of_sdxl_gets_its_kohya_name():
    assert {path: unet_name(sgm_path(path, layers_per_block=2)) for path in GOLDEN} == GOLDEN


def test_stable_diffusion_keeps_diffusers_layout():
    path = "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj"
    assert unet_name(path) == "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj"


@pytest.mark.parametrize("level", ["", "text_model."])
def test_text_encoder_names_have_text_model_whatever_transformers_calls_it(level):
    name = text_encoder_name(f"{level}encoder.layers.3.mlp.fc1", "te2")
    assert name == "lora_te2_text_model_encoder_layers_3_mlp_fc1"


def test_blocks_are_counted_by_layers_per_block():
    assert (
        sgm_path("down_blocks.1.resnets.0.conv1", layers_per_block=1)
        == "input_blocks.3.0.in_layers.2"
    )
    assert sgm_path("up_blocks.0.upsamplers.0.conv", layers_per_block=1) == "output_blocks.1.2.conv"


def test_positions_run_from_input_through_middle_to_output():
    paths = ["output_blocks.0.0.a", "input_blocks.10.0.a", "middle_block.2.a", "input_blocks.9.1.a"]
    assert sorted(paths, key=sgm_position) == [paths[3], paths[1], paths[2], paths[0]]
