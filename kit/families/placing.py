"""A LoRA file's modules by the names that a base model's layers have.

A U-Net's path is spelled in diffusers' way and in Stability's, and the first text encoder is `te`
or `te1`. A file may have either; which one a layer has here, depends on the family.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from kit.families import Family, Layer, Norm
from kit.families.kohya_names import sgm_path, unet_name

_ENCODERS = {"te": "te1", "te1": "te"}


def placed(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """The tensors of a LoRA file, renamed for this base model; others keep their names.

    Linear factors of a convolution (R I, or R I*K*K) become those of a kernel (R I K K).
    """
    aliases = dict(_aliases(family))
    layers = {layer.name: layer for layer in family.layers()}
    found = {}
    for key, tensor in tensors.items():
        module, _, role = key.partition(".")
        name = module if module in layers else aliases.get(module, module)
        found[f"{name}.{role}"] = _as_kernel(tensor, role, layers.get(name))
    return found


def _aliases(family: Family) -> Iterator[tuple[str, str]]:
    """Every other name of a layer or norm, and its own."""
    places: list[Layer | Norm] = [*family.layers(), *family.norms()]
    with_attention = {
        place.path.split(".")[1]
        for place in places
        if place.path.startswith("up_blocks.") and ".attentions." in place.path
    }
    for place in places:
        if place.part != "unet":
            if place.part in _ENCODERS:
                start = f"lora_{place.part}_"
                yield f"lora_{_ENCODERS[place.part]}_{place.name.removeprefix(start)}", place.name
            continue
        yield unet_name(place.path), place.name
        yield unet_name(_sgm(place.path, family, with_attention)), place.name


def _sgm(path: str, family: Family, with_attention: set[str]) -> str:
    """In Stability's way; an up-sampler without attention before it moves up one place."""
    unet: Any = family.unet
    found = sgm_path(path, layers_per_block=unet.config.layers_per_block)
    if ".upsamplers." in path and path.split(".")[1] not in with_attention:
        return found.replace(".2.conv", ".1.conv")
    return found


def _as_kernel(tensor: Tensor, role: str, layer: Layer | None) -> Tensor:
    if layer is None or tensor.dim() != 2 or not isinstance(layer.module, nn.Conv2d):
        return tensor
    if role == "lora_up.weight":
        return tensor[:, :, None, None]
    kernel = (layer.module.in_channels // layer.module.groups, *layer.module.kernel_size)
    fits = role == "lora_down.weight" and tensor.shape[1] == math.prod(kernel)
    return tensor.reshape(-1, *kernel) if fits else tensor
