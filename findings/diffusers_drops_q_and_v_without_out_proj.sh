#!/usr/bin/env bash
# diffusers loads q, k and v of a kohya LoRA's text encoder only where some layer's out_proj is in the file.
#
# Versions: diffusers 0.42.1, PEFT 0.21.2, transformers 5.24.0, torch 2.13.0 (CPU), Python 3.11.
#
# What one would guess: each layer of the file is loaded by its own name, so a LoRA that adapts q_proj and
# the two MLP layers changes these three kinds of layers; and a layer that is not taken is warned of.
#
# What is seen: of q_proj + fc1 only fc1 is loaded, without a word about q_proj. With out_proj beside
# it, q_proj is loaded. With q_proj alone the load fails: "Could not automatically infer state dict type".
#
# Source: diffusers/utils/state_dict_utils.py. kohya's keys become the oldest of diffusers' own layouts, and
# whether a file has that layout is asked of "to_out_lora", the old name of out_proj, alone. Otherwise it
# is taken for the next layout, whose table does not know the old names of q, k and v.
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

WIDTH, INNER, RANK = 32, 64, 4
SIZES = {"mlp_fc1": (WIDTH, INNER), "mlp_fc2": (INNER, WIDTH)}


def pipeline():
    """A Stable Diffusion of toy size."""
    encoder = CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=2, num_attention_heads=2, vocab_size=100
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


def lora(*layers):
    """A kohya file of these layers of the text encoder and one of the U-Net."""
    to_q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    shapes = {to_q: (WIDTH, WIDTH)}
    for layer in layers:
        for block in (0, 1):
            name = f"lora_te_text_model_encoder_layers_{block}_{layer}"
            shapes[name] = SIZES.get(layer, (WIDTH, WIDTH))
    file = {}
    for name, (inputs, outputs) in shapes.items():
        file[f"{name}.lora_down.weight"] = torch.randn(RANK, inputs)
        file[f"{name}.lora_up.weight"] = torch.randn(outputs, RANK)
        file[f"{name}.alpha"] = torch.tensor(float(RANK))
    return file


def loaded(*layers):
    """The kinds of layers that have an adapter once the file is loaded."""
    pipe = pipeline()
    pipe.load_lora_weights(lora(*layers))
    names = (name for name, _ in pipe.text_encoder.named_parameters() if ".lora_A." in name)
    return sorted({name.split(".lora_A.")[0].rsplit(".", 1)[1] for name in names})


def alone():
    try:
        return loaded("self_attn_q_proj")
    except ValueError as error:
        return str(error)


seen = {
    "q_proj and fc1": loaded("self_attn_q_proj", "mlp_fc1"),
    "q_proj, out_proj and fc1": loaded("self_attn_q_proj", "self_attn_out_proj", "mlp_fc1"),
    "q_proj alone": alone(),
}
for file, what in seen.items():
    print(f"{file}: {what}")
expected = {
    "q_proj and fc1": ["fc1"],
    "q_proj, out_proj and fc1": ["fc1", "out_proj", "q_proj"],
    "q_proj alone": "Could not automatically infer state dict type",
}
sys.exit(seen != expected)
PYTHON
echo "seen as described"
