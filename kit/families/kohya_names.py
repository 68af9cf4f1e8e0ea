"""Module paths of diffusers and transformers -> kohya's names, which all readers of LoRAs know.

Stable Diffusion 1.x and 2.x keep diffusers' layout (down_blocks, mid_block, up_blocks). SDXL uses
the layout of Stability's own code, sgm (input_blocks, middle_block, output_blocks).
"""

from __future__ import annotations

import re

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_BLOCK = re.compile(
    r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
_SECTIONS = ("input_blocks", "middle_block", "output_blocks")


def text_encoder_name(path: str, part: str) -> str:
    """The name of a text encoder's layer; part is "te", "te1" or "te2".

    transformers 5.6 dropped the level `text_model` from CLIPTextModel; the names keep it.
    """
    return f"lora_{part}_text_model_{path.removeprefix('text_model.').replace('.', '_')}"


def unet_name(path: str) -> str:
    """The name of a U-Net layer; path: diffusers' of SD 1.x and 2.x, `sgm_path`'s of SDXL."""
    return f"lora_unet_{path.replace('.', '_')}"


def sgm_path(path: str, *, layers_per_block: int) -> str:
    """A diffusers U-Net path in Stability's layout.

    There, every pair of ResNet and attention is one numbered block, counted through all levels; a
    level ends with its down-sampler as a block of its own, or with its up-sampler as a third part
    of the last block (SDXL's levels that go up all have attention).
    """
    if path in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[path]
    parts = _BLOCK.fullmatch(path)
    assert parts, f"{path} is no path of an SDXL U-Net"
    side, kind, tail = parts[1], parts[3], parts[5]
    level, index = int(parts[2] or 0), int(parts[4])
    if kind == "resnets":
        tail = _RESNET[tail]
    if kind == "downsamplers":
        return f"input_blocks.{(layers_per_block + 1) * (level + 1)}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{(layers_per_block + 1) * level + layers_per_block}.2.{tail}"
    if side is None:
        return f"middle_block.{2 * index if kind == 'resnets' else 1}.{tail}"
    place = 0 if kind == "resnets" else 1
    if side == "down":
        return f"input_blocks.{(layers_per_block + 1) * level + index + 1}.{place}.{tail}"
    return f"output_blocks.{(layers_per_block + 1) * level + index}.{place}.{tail}"


def sgm_position(path: str) -> tuple[int, int, int]:
    """Where a path in Stability's layout stands in the U-Net: input, middle, output."""
    section, first, second = path.split(".")[:3]
    if section == "middle_block":
        return 1, int(first), 0
    return _SECTIONS.index(section), int(first), int(second)


_NUMBERED = re.compile(
    r"lora_unet_(?:(down|up)_blocks_(\d+)_(resnets|attentions|downsamplers|upsamplers)_(\d+)"
    r"|(mid)_block|(input|middle|output)_blocks?_(\d+))_"
)
_SGM_STARTS = {"input": 1, "middle": 10, "output": 13}


def block_number(name: str) -> int | None:
    """The U-Net block of a kohya name, as the reference numbers them; None outside of the blocks.

    SD 1.x and 2.x: down 0 to 11, middle 12, up 13 to 24. SDXL: input from 1, middle 10 to 12,
    output from 13.
    """
    match = _NUMBERED.match(name)
    if match is None:
        return None
    if match[5]:
        return 12
    if match[6]:
        return _SGM_STARTS[match[6]] + int(match[7])
    place = 2 if match[3].endswith("samplers") else int(match[4])
    return (1 if match[1] == "down" else 13) + 3 * int(match[2]) + place
