"""Text encoders out of single-file models: two foreign layouts, turned into transformers' names.

Done here rather than by diffusers, which tells SDXL's two encoders apart by their width alone,
cannot read the oldest SD 1.x files, and does not say which weights are missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from accelerate import init_empty_weights
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from kit.errors import ModelError

Weights = Mapping[str, Tensor]
_OPEN_CLIP = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
    "text_projection.weight": "text_projection.weight",
}
_OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")


def read_text_encoder(
    kind: type[CLIPTextModel] | type[CLIPTextModelWithProjection],
    *,
    config: Path,
    weights: Weights,
    prefix: str,
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """A text encoder from those of the weights whose names begin with `prefix`, as they are.

    Raises: ModelError where weights are missing or of another shape.
    """
    with init_empty_weights(include_buffers=False):
        model = kind(CLIPTextConfig.from_pretrained(config))
    wanted = model.state_dict()
    # Only CLIPTextModelWithProjection still has the level `text_model` since transformers 5.6.
    nested = any(name.startswith("text_model.") for name in wanted)
    own = {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }
    is_open_clip = "positional_embedding" in own
    renamed = {
        f"text_model.{name}" if nested and not name.startswith("text_projection") else name: tensor
        for name, tensor in (_from_open_clip(own) if is_open_clip else _from_transformers(own))
    }
    wrong = sorted(n for n in wanted if n not in renamed or renamed[n].shape != wanted[n].shape)
    if wrong:
        raise ModelError(
            f"The text encoder under {prefix} is not the usual one: {len(wrong)} of its "
            f"{len(wanted)} weights are missing or of another shape, such as {wrong[0]}.",
            "Models with another text encoder cannot be trained.",
            "Choose another version of the model.",
        )
    model.load_state_dict({name: renamed[name] for name in wanted}, assign=True)
    return model.eval()


def _from_transformers(own: Weights) -> Iterator[tuple[str, Tensor]]:
    """CLIP ViT-L as transformers wrote it, with or without the level `text_model`."""
    for name, tensor in own.items():
        yield name.removeprefix("text_model."), tensor


def _from_open_clip(own: Weights) -> Iterator[tuple[str, Tensor]]:
    """open_clip's layout: query, key and value in one matrix, the projection the other way round.

    Layers beyond those the encoder uses (SD 2.x files hold 24, it reads 23) come out as well.
    """
    for name, tensor in own.items():
        layer = _LAYER.fullmatch(name)
        if name in _OPEN_CLIP:
            yield _OPEN_CLIP[name], tensor
        elif name == "text_projection":
            yield "text_projection.weight", tensor.T.contiguous()
        elif layer and layer[2] == "attn.in_proj":
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                yield f"encoder.layers.{layer[1]}.self_attn.{letter}_proj.{layer[3]}", third
        elif layer and layer[2] in _OPEN_CLIP_LAYER:
            yield f"encoder.layers.{layer[1]}.{_OPEN_CLIP_LAYER[layer[2]]}.{layer[3]}", tensor


def without_level(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Text encoders as transformers names them from 5.6 on, which leaves out `text_model`."""
    level = "text_model."
    return {n.removeprefix(level): each for n, each in tensors.items() if n.startswith(level)}
