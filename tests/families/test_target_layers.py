"""Names, shapes and order of adaptable layers, at real size (on the meta device)."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from kit.families import Layer, Prediction
from kit.families.clip import packaged_tokenizer
from kit.families.loading import config_folder
from kit.families.sd import StableDiffusion
from kit.families.sdxl import StableDiffusionXL
from tests.support.tiny import build_vae

MODELS = json.loads((Path(__file__).parents[1] / "golden" / "lora_keys.json").read_text())["models"]
GOLDEN = {"sd1": "sd15", "sd2": "sd21_conv_proj", "sdxl": "sdxl"}
COUNTS = {"sd1": (72, 192, 86), "sd2": (138, 192, 86), "sdxl": (264, 722, 66)}


def family_on_meta(key: str):
    configs = config_folder(key)

    def text(part: str, kind: type) -> nn.Module:
        return kind(CLIPTextConfig.from_pretrained(configs / part))

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(configs / "unet"))
        parts = (
            Prediction.EPSILON,
            False,
            unet,
            build_vae(1.0),
            text("text_encoder", CLIPTextModel),
        )
        if key == "sdxl":
            second = text("text_encoder_2", CLIPTextModelWithProjection)
            return StableDiffusionXL(*parts, second, packaged_tokenizer(), packaged_tokenizer("!"))
        return StableDiffusion(key, *parts, packaged_tokenizer())


def lora_shapes(layer: Layer, *, rank: int, conv_rank: int) -> list[list[int]]:
    rank = conv_rank if layer.is_conv3x3 else rank
    out, into, *kernel = layer.module.weight.shape
    return [[rank, into, *kernel], [out, rank, *[1] * len(kernel)]]


@pytest.fixture(scope="module", params=list(GOLDEN))
def key_and_layers(request):
    return request.param, list(family_on_meta(request.param).layers())


def expected(key: str, network: str, field: str) -> dict:
    modules = dict(MODELS[f"{GOLDEN[key]}/{network}"][field])
    if (
        key == "sd2" and field == "modules"
    ):  # the golden tells the linear variant by its differences
        linear = MODELS[f"sd21_linear_proj/{network}"]["only_modules_differing_from_conv_proj"]
        assert set(linear) <= set(modules)
        modules |= linear
    return modules


def test_transformer_layers_are_the_references_in_its_order(key_and_layers):
    key, layers = key_and_layers
    found = {
        layer.name: lora_shapes(layer, rank=4, conv_rank=0)
        for layer in layers
        if layer.in_transformer
    }
    wanted = expected(key, "rank4_linear", "modules")
    assert list(found) == list(wanted)
    assert found == wanted


def test_the_conv_extension_is_the_references_in_its_order(key_and_layers):
    key, layers = key_and_layers
    found = {
        layer.name: lora_shapes(layer, rank=4, conv_rank=2)
        for layer in layers
        if not layer.in_transformer
    }
    wanted = expected(key, "rank4_conv2", "additional_modules")
    assert list(found) == list(wanted)
    assert found == wanted


def test_every_layer_is_told_once_and_knows_its_part(key_and_layers):
    key, layers = key_and_layers
    assert len({layer.name for layer in layers}) == len({id(layer.module) for layer in layers})
    parts = [layer.part for layer in layers]
    encoders, unet, conv = COUNTS[key]
    assert parts.count("unet") == unet + conv
    assert len(parts) == encoders + unet + conv
    assert {part for part in parts if part != "unet"} == (
        {"te1", "te2"} if key == "sdxl" else {"te"}
    )
    prefixes = {layer.name.removeprefix("lora_").split("_")[0]: layer.part for layer in layers}
    assert all(prefix == part for prefix, part in prefixes.items())


def test_a_module_that_two_blocks_share_is_told_once():
    family = family_on_meta("sd1")
    encoder = getattr(family.text_encoder, "text_model", family.text_encoder).encoder
    encoder.layers[1].mlp = encoder.layers[0].mlp
    assert len([layer for layer in family.layers() if layer.part == "te"]) == 72 - 2
