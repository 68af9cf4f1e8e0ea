"""Where adapters may sit: the walk through text encoders and U-Net, in the reference's order."""

from __future__ import annotations

from collections.abc import Iterator

from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention

from kit.families import Layer
from kit.families.kohya_names import text_encoder_name

Found = tuple[str, nn.Linear | nn.Conv2d]  # path and module


def text_encoder_layers(text_encoder: nn.Module, part: str) -> Iterator[Layer]:
    """The linear layers of attention and MLP; part is "te", "te1" or "te2"."""
    for path, module in _inside(text_encoder, (CLIPAttention, CLIPMLP)):
        name, around = text_encoder_name(path, part), blocks_around(text_encoder, path)
        yield Layer(name, module, part, in_transformer=True, path=path, blocks=around)


def unet_layers(unet: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d, bool]]:
    """Path, module and in_transformer of the linear and convolution layers in U-Net blocks."""
    in_transformer = {id(module) for _, module in _inside(unet, (Transformer2DModel,))}
    blocks = (Transformer2DModel, ResnetBlock2D, Downsample2D, Upsample2D)
    for path, module in _inside(unet, blocks):
        yield path, module, id(module) in in_transformer


def reading_alike(root: nn.Module) -> Iterator[tuple[nn.Module, ...]]:
    """The layers of each attention that read the same tensor: q, k and v, or k and v of words."""
    for module in root.modules():
        if isinstance(module, Attention):
            alike = ("to_k", "to_v") if module.is_cross_attention else ("to_q", "to_k", "to_v")
        elif isinstance(module, CLIPAttention):
            alike = ("q_proj", "k_proj", "v_proj")
        else:
            continue
        yield tuple(module.get_submodule(name) for name in alike)


def norm_layers(unet: nn.Module) -> Iterator[tuple[str, nn.GroupNorm | nn.LayerNorm, bool]]:
    """Path, module and in_transformer of the normalisations in U-Net blocks."""
    for path, module in _ordered(unet):
        if not isinstance(module, nn.GroupNorm | nn.LayerNorm):
            continue
        around = blocks_around(unet, path)
        in_transformer = "Transformer2DModel" in around
        if in_transformer or "ResnetBlock2D" in around:
            yield path, module, in_transformer


def blocks_around(root: nn.Module, path: str) -> frozenset[str]:
    """The classes of the modules that a layer lies in, itself left out."""
    names: set[str] = set()
    module = root
    for step in path.split(".")[:-1]:
        module = module.get_submodule(step)
        names.add(type(module).__name__)
    return frozenset(names)


def _inside(root: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[Found]:
    """Linear and Conv2d modules inside blocks of these kinds, none of them twice."""
    seen: set[int] = set()
    for outer, block in _ordered(root):
        if not isinstance(block, kinds):
            continue
        for inner, module in _ordered(block, outer):
            if isinstance(module, nn.Linear | nn.Conv2d) and id(module) not in seen:
                seen.add(id(module))
                yield inner, module


def _ordered(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every module with its path, parents first.

    The reference's transformer block is attn1, ff, attn2; diffusers' is attn1, attn2, ff. With the
    reference's order, a run's initial weights and optimizer groups can be compared with its own.
    """
    yield path, module
    for name, child in sorted(module.named_children(), key=lambda item: item[0] == "attn2"):
        yield from _ordered(child, f"{path}.{name}" if path else name)
