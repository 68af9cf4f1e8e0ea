"""Miniature base models with random weights: diffusers folders of every family, made in a second.

They keep the layout of the real models (blocks, layers per block, heads, projections) and shrink
the widths. The two encoders of SDXL differ in width, as the real ones do.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from kit.families.clip import END, packaged_tokenizer

CROSS = "CrossAttnDownBlock2D"
_SD_UNET: dict[str, Any] = {
    "sample_size": 8,
    "down_block_types": (CROSS, CROSS, CROSS, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 2,
    "norm_num_groups": 16,
}
_UNETS: dict[str, dict[str, Any]] = {
    "sd1": {**_SD_UNET, "cross_attention_dim": 32, "attention_head_dim": 8},
    "sd2": {
        **_SD_UNET,
        "cross_attention_dim": 48,
        "attention_head_dim": [2, 4, 8, 8],
        "use_linear_projection": True,
    },
    "sdxl": {
        "sample_size": 8,
        "down_block_types": ("DownBlock2D", CROSS, CROSS),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (32, 64, 64),
        "layers_per_block": 2,
        "norm_num_groups": 16,
        "cross_attention_dim": 32 + 48,
        "attention_head_dim": [2, 4, 8],
        "transformer_layers_per_block": [1, 1, 2],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 48 + 6 * 8,
    },
}
_THIN: dict[str, dict[str, Any]] = {
    "sd1": {
        "down_block_types": (CROSS, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
    }
}
_THIN["sd2"] = {**_THIN["sd1"], "attention_head_dim": [2, 4]}
_THIN["sdxl"] = {"block_out_channels": (16, 32, 32), "transformer_layers_per_block": 1}


def text_config(width: int, layers: int, activation: str) -> CLIPTextConfig:
    """CLIP's text encoder, narrow."""
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        projection_dim=width,
        hidden_act=activation,
        bos_token_id=0,  # as in the real models' settings, which do not tell the tokenizer's ids
        eos_token_id=2,
        pad_token_id=1,
    )


def build_vae(scaling_factor: float) -> AutoencoderKL:
    """A VAE of Stable Diffusion's layout, factor 8."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=2,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=scaling_factor,
    )


def write_tiny(
    folder: Path,
    family: str,
    *,
    predicts: str = "epsilon",
    zero_snr: bool = False,
    seed: int = 0,
    thin: bool = False,
    inpainting: bool = False,
) -> Path:
    """A diffusers folder of "sd1", "sd2" or "sdxl"; the same seed gives the same weights.

    zero_snr: its scheduler says that the noisiest step is pure noise; thin: fewer blocks than the
    real layout, for tests of everything but names; inpainting: its U-Net reads 9 channels.
    """
    made = _made(family, predicts, zero_snr, seed, thin, inpainting)
    # Files of their own time, as if they were written now.
    shutil.copytree(made.name, folder, copy_function=shutil.copy, dirs_exist_ok=True)
    return folder


@functools.cache
def _made(
    family: str, predicts: str, zero_snr: bool, seed: int, thin: bool, inpainting: bool
) -> tempfile.TemporaryDirectory[str]:
    """Built once; each test may do to its copy what it likes."""
    made = tempfile.TemporaryDirectory(prefix="tiny-", ignore_cleanup_errors=True)
    folder = Path(made.name)
    is_xl = family == "sdxl"
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel(
            **_UNETS[family] | (_THIN[family] if thin else {}),
            in_channels=9 if inpainting else 4,
        ),
        "vae": build_vae(0.13025 if is_xl else 0.18215),
        "text_encoder": CLIPTextModel(
            text_config(48, 2, "gelu") if family == "sd2" else text_config(32, 3, "quick_gelu")
        ),
    }
    if is_xl:
        parts["text_encoder_2"] = CLIPTextModelWithProjection(text_config(48, 3, "gelu"))
    for name, module in parts.items():
        draw_weights(module, f"{seed} {name}")
    parts["scheduler"] = _scheduler(family, predicts, zero_snr)
    pads = {"tokenizer": "!" if family == "sd2" else END, "tokenizer_2": "!"}
    for name in ("tokenizer", "tokenizer_2") if is_xl else ("tokenizer",):
        parts[name] = packaged_tokenizer(pads[name], splits_pad=True).inner
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    _write_index(folder, parts)
    return made


def draw_weights(module: torch.nn.Module, seed: str) -> None:
    """Every weight from the seed and its own name: the libraries' drawing differs by version.

    As wide as the libraries draw them, but biases and norms lie away from 0 and 1, so that mixing
    them up shows.
    """
    for name, weight in module.named_parameters():
        draw = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        if weight.ndim == 1:
            mean = float("norm" in name and "weight" in name)
            torch.nn.init.normal_(weight, mean=mean, std=0.1, generator=draw)
        elif "embedding." in name:
            torch.nn.init.normal_(weight, std=0.02, generator=draw)
        else:
            most = weight[0].numel() ** -0.5
            torch.nn.init.uniform_(weight, -most, most, generator=draw)


def _scheduler(family: str, predicts: str, zero_snr: bool) -> Any:
    shared = {
        "rescale_betas_zero_snr": zero_snr,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "prediction_type": predicts,
    }
    if family == "sdxl":
        return EulerDiscreteScheduler(**shared)
    return DDIMScheduler(**shared, clip_sample=False, set_alpha_to_one=False)


def _write_index(folder: Path, parts: dict[str, Any]) -> None:
    pipeline = (
        "StableDiffusionXLPipeline" if "text_encoder_2" in parts else "StableDiffusionPipeline"
    )
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.39.0"}
    for name, part in parts.items():
        library = "transformers" if name.startswith("t") else "diffusers"
        index[name] = [
            library,
            "CLIPTokenizer" if library[0] == "t" and "tok" in name else type(part).__name__,
        ]
    if "text_encoder_2" not in parts:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
