#!/usr/bin/env bash
# One picture drawn at LoRA scale 0 makes diffusers forget the weight that set_adapters gave.
#
# Versions: diffusers 0.42.1, PEFT 0.21.2, transformers 5.24.0, torch 2.13.0 (CPU), Python 3.11.
#
# What one would guess: `cross_attention_kwargs={"scale": s}` holds for the one call that it is given
# to. A call without it draws what it drew before, and so it is after any scale but one.
#
# What is seen: after a call with scale 0, the usual way to draw the base model's picture for
# comparison, a LoRA that set_adapters gave the weight 0.5 is drawn at 1 from then on, in the U-Net and
# in the text encoder, and nothing says so: every later picture is, to the last bit, that of weight 1.
# A call with scale 0.25 leaves the weight as it was.
#
# Source: diffusers/utils/peft_utils.py. The call multiplies the LoRA's scaling by s and afterwards
# divides by it. It cannot divide by 0, so unscale_lora_layers calls set_scale(adapter, 1.0), "the original
# value": that is alpha / rank, not what set_adapters had made of it.
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
LAYERS += [f"lora_te_text_model_encoder_layers_0_self_attn_{part}_proj" for part in ("q", "k", "v", "out")]


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
    pipe = StableDiffusionPipeline(
        vae, CLIPTextModel(encoder), None, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def lora():
    """A LoRA of both parts in kohya's layout."""
    file = {}
    for layer in LAYERS:
        file[f"{layer}.lora_down.weight"] = torch.randn(RANK, WIDTH)
        file[f"{layer}.lora_up.weight"] = torch.randn(WIDTH, RANK)
        file[f"{layer}.alpha"] = torch.tensor(float(RANK))
    return file


def drawn(scale=None):
    """The latents of the same prompt and noise."""
    given = {} if scale is None else {"cross_attention_kwargs": {"scale": scale}}
    words = torch.randn(1, 77, WIDTH, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    return pipe(
        prompt_embeds=words, latents=noise, guidance_scale=1.0, num_inference_steps=2, output_type="latent", **given
    ).images


def scalings():
    """What the LoRA's change is multiplied by, in each part; alpha is the rank."""
    parts = {"U-Net": pipe.unet, "text encoder": pipe.text_encoder}
    return {
        part: {round(scale, 6) for m in model.modules() if hasattr(m, "scaling") for scale in m.scaling.values()}
        for part, model in parts.items()
    }


logging.set_verbosity_error()
torch.manual_seed(0)
pipe = pipeline()
pipe.load_lora_weights(lora(), adapter_name="cat")
pipe.set_adapters("cat", 1.0)
at_one = drawn()
pipe.set_adapters("cat", 0.5)
at_half = drawn()
drawn(0.25)
after_quarter, kept = drawn(), scalings()
drawn(0.0)
after_zero, lost = drawn(), scalings()
print("after a call with scale 0.25:", kept)
print("after a call with scale 0:   ", lost)
print("the next picture is that of weight 1:", torch.equal(after_zero, at_one))
as_described = (
    not torch.allclose(at_half, at_one, atol=1e-3)
    and torch.allclose(after_quarter, at_half, atol=1e-5)
    and kept == {"U-Net": {0.5}, "text encoder": {0.5}}
    and lost == {"U-Net": {1.0}, "text encoder": {1.0}}
    and torch.equal(after_zero, at_one)
)
sys.exit(not as_described)
PYTHON
echo "seen as described"
