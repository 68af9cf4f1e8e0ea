"""Image encoders of CLIP's, SigLIP's and DINO's kind: tiny ones, written as the Hub has them."""

import json
import sys

import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipModel,
)

from kit.comparing.eyes import encoder_eye
from kit.demo import BASE
from kit.errors import KitError

CPU = torch.device("cpu")
SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
SEES = {**SMALL, "image_size": 32, "patch_size": 16}


def written(folder, kind):
    tokenizer = CLIPTokenizer.from_pretrained(BASE / "tokenizer")
    reads = {**SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 77}
    torch.manual_seed(1)
    if kind == "clip":
        ends = {"bos_token_id": 1, "eos_token_id": len(tokenizer) - 1}
        config = CLIPConfig(text_config={**reads, **ends}, vision_config=SEES, projection_dim=8)
        model, said = CLIPModel(config), {"crop_size": {"height": 32, "width": 32}}
    elif kind == "siglip":
        model = SiglipModel(SiglipConfig(text_config=reads, vision_config=SEES))
        said = {"size": {"height": 32, "width": 32}, "image_mean": [0.4] * 3}
    else:
        model, said = Dinov2Model(Dinov2Config(**SEES)), {"size": {"shortest_edge": 32}}
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(said), "utf-8")
    if kind != "dino":
        tokenizer.save_pretrained(folder)
    return str(folder)


PICTURES = [Image.new("RGB", (64, 64), "red"), Image.new("RGB", (90, 40), "blue")]


@pytest.mark.parametrize("kind", ["clip", "siglip", "dino"])
def test_it_sees_and_reads_what_it_can(tmp_path, kind):
    eye = encoder_eye(written(tmp_path, kind), CPU)
    seen = eye.sees(PICTURES)
    assert seen.shape[0] == 2 and torch.allclose(seen.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.equal(seen, eye.sees_places(PICTURES))
    assert torch.allclose(eye.sees(PICTURES[:1]), seen[:1], atol=1e-5)
    assert not torch.allclose(seen[0], seen[1])
    read = eye.reads(["a red ball", "a blue square"])
    if kind == "dino":
        assert read is None
    else:
        assert read.shape == seen.shape
        assert torch.allclose(read.norm(dim=1), torch.ones(2), atol=1e-5)


def test_pictures_are_resized_here_without_torchvision(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    eye = encoder_eye(written(tmp_path, "siglip"), CPU)
    pixels = eye._resized(PICTURES[0])
    assert pixels.shape == (3, 32, 32)
    assert pixels[:, 0, 0].tolist() == pytest.approx([(1 - 0.4) / 0.5, -0.8, -0.8])


def test_one_that_cannot_be_had_is_named(tmp_path):
    with pytest.raises(KitError, match="cannot be had") as told:
        encoder_eye(str(tmp_path / "nothing"), CPU)
    assert "the base model's own features are used" in told.value.do
