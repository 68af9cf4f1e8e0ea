#!/usr/bin/env bash
# diffusers scales a kohya LoRA's layer that has no alpha by the alpha that most other layers have.
#
# Versions: diffusers 0.42.1, PEFT 0.21.2, transformers 5.24.0, torch 2.13.0 (CPU), Python 3.11.
#
# What one would guess: a layer without ".alpha" counts as it is, with scale 1 (alpha = rank). So read
# the trainers' own loaders, and so does diffusers a file in which no layer has an alpha.
#
# What is seen: with alpha 1 beside two layers of rank 8, a third of rank 8 without an alpha is scaled
# by 1/8, a fourth of rank 4 by 1/4; nothing warns. Taking the other alphas out of the same file brings
# both back to 1.
#
# Source: diffusers/utils/peft_utils.py, get_peft_kwargs: the most frequent alpha becomes the adapter's
# lora_alpha, and only layers whose own alpha differs get an entry in alpha_pattern. A layer without one
# is in neither table, so the adapter's value is taken for it.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$work/venv/bin/pip" install --quiet diffusers==0.42.1 peft==0.21.2 transformers==5.24.0 accelerate==1.15.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

WIDTH = 32
RANKS = {"to_q": 8, "to_k": 8, "to_v": 8, "to_out_0": 4}
BLOCK = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_"


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
    scheduler = DDPMScheduler()
    return StableDiffusionPipeline(
        vae, CLIPTextModel(encoder), None, unet, scheduler, None, None, requires_safety_checker=False
    )


def scales(with_alpha):
    """What each layer's change is multiplied by, once a file with these alphas is loaded."""
    file = {}
    for layer, rank in RANKS.items():
        file[f"{BLOCK}{layer}.lora_down.weight"] = torch.randn(rank, WIDTH)
        file[f"{BLOCK}{layer}.lora_up.weight"] = torch.randn(WIDTH, rank)
        if layer in with_alpha:
            file[f"{BLOCK}{layer}.alpha"] = torch.tensor(1.0)
    pipe = pipeline()
    pipe.load_lora_weights(file)
    seen = {}
    for name, module in pipe.unet.named_modules():
        if hasattr(module, "scaling"):
            layer = name.split("attn1.")[1].replace(".", "_")
            (seen[layer],) = module.scaling.values()
    return seen


some, none = scales(("to_q", "to_k")), scales(())
print("alpha 1 at to_q and to_k:", some)
print("no alpha anywhere:       ", none)
expected = {"to_q": 0.125, "to_k": 0.125, "to_v": 0.125, "to_out_0": 0.25}
sys.exit(some != expected or none != dict.fromkeys(RANKS, 1.0))
PYTHON
echo "seen as described"
