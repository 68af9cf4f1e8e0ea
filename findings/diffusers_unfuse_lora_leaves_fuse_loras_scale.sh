#!/usr/bin/env bash
# diffusers' unfuse_lora does not undo fuse_lora(lora_scale=...): the LoRA stays at that scale.
#
# Versions: diffusers 0.42.1, PEFT 0.21.2, transformers 5.24.0, torch 2.13.0 (CPU), Python 3.11.
#
# What one would guess: unfuse_lora "reverses the effect of fuse_lora", as its docstring says, so that
# a LoRA can be fused at one scale after the other; and with adapter_names, lora_scale is that of
# the adapters which are named.
#
# What is seen: the base weights come back, but the LoRA beside them keeps the scale. Fused at 0.5 and
# unfused, it is drawn at 0.5 and not at 1; fused again at 0.5 it has 0.25, a third time 0.125. And the
# scale is given to the active adapters, named or not: with "dog" active, fuse_lora(adapter_names=["cat"],
# lora_scale=0.5) fuses cat at 1 and leaves dog at 0.5.
#
# Source: diffusers/loaders/peft.py, _fuse_lora_apply: module.scale_layer(lora_scale) multiplies the
# scaling of PEFT's active adapters before merge(adapter_names=...). _unfuse_lora_apply calls unmerge()
# and divides by nothing. The text encoder's functions in lora_base.py are the same.
set -euo pipefail
export OMP_NUM_THREADS=1
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$work/venv/bin/pip" install --quiet diffusers==0.42.1 peft==0.21.2 transformers==5.24.0 accelerate==1.15.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging
from transformers import CLIPTextConfig, CLIPTextModel

WIDTH, RANK = 32, 4
BLOCK = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_"
LAYERS = [f"{BLOCK}{part}" for part in ("q", "k", "v", "out_0")]


def pipeline():
    """A Stable Diffusion of toy size."""
    encoder = CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=100
    )
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(WIDTH, WIDTH), layers_per_block=1, cross_attention_dim=WIDTH,
        norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=8)
    scheduler = DDIMScheduler(steps_offset=1, clip_sample=False)
    return StableDiffusionPipeline(
        vae, CLIPTextModel(encoder), None, unet, scheduler, None, None, requires_safety_checker=False
    )


def lora():
    """A LoRA of the U-Net in kohya's layout."""
    file = {}
    for layer in LAYERS:
        file[f"{layer}.lora_down.weight"] = torch.randn(RANK, WIDTH)
        file[f"{layer}.lora_up.weight"] = torch.randn(WIDTH, RANK)
        file[f"{layer}.alpha"] = torch.tensor(float(RANK))
    return file


@torch.no_grad()
def predicted():
    """What the U-Net makes of one noise, one timestep and one prompt."""
    draws = torch.Generator().manual_seed(1)
    noise, words = torch.randn(1, 4, 8, 8, generator=draws), torch.randn(1, 77, WIDTH, generator=draws)
    return pipe.unet(noise, 500, words).sample


def alike(one, other):
    return torch.allclose(one, other, atol=1e-5)


logging.set_verbosity_error()
torch.manual_seed(0)
pipe = pipeline()
pipe.load_lora_weights(lora(), adapter_name="cat")
pipe.load_lora_weights(lora(), adapter_name="dog")
expected = {}
for name in ("cat", "dog"):
    for weight in (1.0, 0.5, 0.25, 0.125):
        pipe.set_adapters(name, weight)
        expected[name, weight] = predicted()


def which():
    """The adapter and the weight at which it now acts."""
    found = [f"{name} at {weight}" for (name, weight), picture in expected.items() if alike(predicted(), picture)]
    return " or ".join(found) or "neither"


seen = {}
pipe.set_adapters("cat", 1.0)
for time in (1, 2, 3):
    pipe.fuse_lora(lora_scale=0.5)
    seen[f"fused at 0.5, time {time}"] = which()
    pipe.unfuse_lora()
    seen[f"unfused, time {time}"] = which()
pipe.set_adapters("cat", 1.0)
pipe.set_adapters("dog", 1.0)
pipe.fuse_lora(adapter_names=["cat"], lora_scale=0.5)
seen["dog active, cat fused at 0.5"] = which()
pipe.unfuse_lora()
seen["unfused"] = which()
for what, text in seen.items():
    print(f"{what}: {text}")
as_described = list(seen.values()) == [
    "cat at 0.5", "cat at 0.5", "cat at 0.25", "cat at 0.25", "cat at 0.125", "cat at 0.125",
    "cat at 1.0", "dog at 0.5",
]
sys.exit(not as_described)
PYTHON
echo "seen as described"
