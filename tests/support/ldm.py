"""Diffusers folders as single files in the layout of the original codes (LDM, open_clip, sgm)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Weights = dict[str, Tensor]
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
}
_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def single_file_weights(folder: Path) -> Weights:
    """All weights of a diffusers folder, with the names that a single-file model gives them."""
    attention = _levels_with_attention(folder)
    out = {
        f"model.diffusion_model.{_unet_name(name, attention)}": tensor
        for name, tensor in _read(folder / "unet").items()
    }
    out |= {f"first_stage_model.{n}": t for n, t in _vae(_read(folder / "vae"))}
    first = _read(folder / "text_encoder")
    if (folder / "text_encoder_2").is_dir():
        out |= {f"conditioner.embedders.0.transformer.text_model.{n}": t for n, t in first.items()}
        second = _read(folder / "text_encoder_2")
        out |= {f"conditioner.embedders.1.model.{n}": t for n, t in _open_clip(second)}
    elif json.loads((folder / "unet/config.json").read_text()).get("use_linear_projection"):
        layers = _open_clip(first, one_more_layer=True)
        out |= {f"cond_stage_model.model.{n}": t for n, t in layers}
    else:
        out |= {f"cond_stage_model.transformer.text_model.{n}": t for n, t in first.items()}
    return {name: tensor.contiguous() for name, tensor in out.items()}


def ldm_path(folder: Path, path: str) -> str:
    """A U-Net layer's path in LDM's layout."""
    return _unet_name(f"{path}.weight", _levels_with_attention(folder)).removesuffix(".weight")


def write_single_file(folder: Path, path: Path, *, markers: tuple[str, ...] = ()) -> Path:
    """The same as one .safetensors or .ckpt; markers are "v_pred" and "ztsnr"."""
    weights = single_file_weights(folder) | {name: torch.zeros(0) for name in markers}
    if path.suffix == ".ckpt":
        torch.save({"state_dict": weights, "global_step": 7}, path)
    else:
        save_file(weights, path)
    return path


def _read(part: Path) -> Weights:
    """One part's weights; text encoders without the level `text_model`."""
    weights = load_file(next(part.glob("*.safetensors")))
    return {name.removeprefix("text_model."): tensor for name, tensor in weights.items()}


def _levels_with_attention(folder: Path) -> tuple[list[bool], list[bool], int]:
    config = json.loads((folder / "unet/config.json").read_text())
    return (
        ["CrossAttn" in kind for kind in config["down_block_types"]],
        ["CrossAttn" in kind for kind in config["up_block_types"]],
        config["layers_per_block"],
    )


def _unet_name(name: str, levels: tuple[list[bool], list[bool], int]) -> str:
    _, up_attention, per_block = levels
    for ours, theirs in _UNET_ENDS.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    if middle := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        place = 1 if middle[1] == "attentions" else 2 * int(middle[2])
        return f"middle_block.{place}.{_inner(middle[1], middle[3])}"
    block = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", name)
    assert block, name
    level, index, tail = int(block[2]), int(block[4]), _inner(block[3], block[5])
    if block[3] == "downsamplers":
        return f"input_blocks.{(per_block + 1) * (level + 1)}.0.op.{tail.removeprefix('conv.')}"
    if block[3] == "upsamplers":
        place = 2 if up_attention[level] else 1
        return f"output_blocks.{(per_block + 1) * level + per_block}.{place}.{tail}"
    place = 1 if block[3] == "attentions" else 0
    if block[1] == "down":
        return f"input_blocks.{(per_block + 1) * level + index + 1}.{place}.{tail}"
    return f"output_blocks.{(per_block + 1) * level + index}.{place}.{tail}"


def _inner(kind: str, tail: str) -> str:
    if kind != "resnets":
        return tail
    part, rest = tail.split(".")
    return f"{_RESNET[part]}.{rest}"


def _open_clip(weights: Weights, *, one_more_layer: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Query, key and value in one matrix; the projection the other way round."""
    count = 0
    for name, tensor in weights.items():
        if name in _OPEN_CLIP:
            yield _OPEN_CLIP[name], tensor
        elif name == "text_projection.weight":
            yield "text_projection", tensor.T
        elif layer := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name):
            count = max(count, int(layer[1]) + 1)
            block = f"transformer.resblocks.{layer[1]}"
            if layer[2] in _OPEN_CLIP_LAYER:
                yield f"{block}.{_OPEN_CLIP_LAYER[layer[2]]}.{layer[3]}", tensor
            elif layer[2].endswith("q_proj"):
                three = [weights[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
                yield f"{block}.attn.in_proj_{layer[3]}", torch.cat(three)
    yield "logit_scale", torch.tensor(4.6)
    if one_more_layer:  # SD 2.x files hold a layer that the model never uses
        width = weights["final_layer_norm.weight"].shape[0]
        yield from _unused_layer(f"transformer.resblocks.{count}", width)
        yield "text_projection", torch.zeros(width, width)


def _unused_layer(block: str, width: int) -> Iterator[tuple[str, Tensor]]:
    shapes = {
        "attn.in_proj_": ((3 * width, width), (3 * width,)),
        "attn.out_proj.": ((width, width), (width,)),
        "ln_1.": ((width,), (width,)),
        "ln_2.": ((width,), (width,)),
        "mlp.c_fc.": ((2 * width, width), (2 * width,)),
        "mlp.c_proj.": ((width, 2 * width), (width,)),
    }
    for name, (weight, bias) in shapes.items():
        yield f"{block}.{name}weight", torch.full(weight, 9.0)
        yield f"{block}.{name}bias", torch.full(bias, 9.0)


def _vae(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    levels = 1 + max(int(n.split(".")[2]) for n in weights if n.startswith("decoder.up_blocks"))
    for name, tensor in weights.items():
        theirs = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        theirs = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", theirs)
        theirs = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", theirs)
        theirs = re.sub(
            r"up_blocks\.(\d)\.(resnets\.|upsamplers\.0)",
            lambda m: f"up.{levels - 1 - int(m[1])}.{'block.' if m[2][0] == 'r' else 'upsample'}",
            theirs,
        )
        theirs = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", theirs)
        if attention := re.fullmatch(
            r"(.+)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)", theirs
        ):
            theirs = f"{attention[1]}.mid.attn_1.{_VAE_ATTENTION[attention[2]]}.{attention[3]}"
            if tensor.ndim == 2:
                tensor = tensor[:, :, None, None]  # a 1x1 convolution in the original
        yield theirs, tensor
