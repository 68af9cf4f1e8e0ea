"""What adapters compute with: the layer's own operation by another weight, products, strength.

Shapes: O outputs, I inputs, R rank, K kernel side.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

AdaptedLayer = nn.Linear | nn.Conv2d


def weight_shape(layer: AdaptedLayer) -> tuple[int, ...]:
    """The shape of a layer's weight, also where the weight itself is stored otherwise."""
    if isinstance(layer, nn.Conv2d):
        inside = layer.in_channels // layer.groups
        return (layer.out_channels, inside, *layer.kernel_size)
    return (layer.out_features, layer.in_features)


def applied(layer: AdaptedLayer, inputs: Tensor, weight: Tensor, **changes: Any) -> Tensor:
    """Another weight, without bias, used as the layer uses its own.

    changes: what a convolution does otherwise, such as stride=1.
    """
    inputs, weight = _alike(inputs, weight)
    if not isinstance(layer, nn.Conv2d):
        return functional.linear(inputs, weight)
    usual = {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
    return functional.conv2d(inputs, weight, None, **cast(Any, usual | changes))


def pointwise(layer: AdaptedLayer, inputs: Tensor, weight: Tensor) -> Tensor:
    """A weight that mixes channels at each place alone: a linear layer or a 1x1 convolution."""
    if isinstance(layer, nn.Conv2d):
        weight = weight.reshape(*weight.shape[:2], 1, 1)
        return applied(layer, inputs, weight, stride=1, padding=0, dilation=1, groups=1)
    return applied(layer, inputs, weight)


def _alike(inputs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """In one precision: that of autocast, which chooses itself, else 32 bits."""
    if torch.is_autocast_enabled(inputs.device.type):
        return inputs, weight
    return inputs.float(), weight.float()


def without_bias(layer: AdaptedLayer, output: Tensor) -> Tensor:
    """What the layer's weight made of its inputs, float32."""
    if layer.bias is None:
        return output.float()
    return output.float() - per_output(layer, layer.bias.float())


def per_output(layer: AdaptedLayer, values_O: Tensor) -> Tensor:
    """One value for each output, in a shape that multiplies the layer's output."""
    values_O = values_O.reshape(-1)
    return values_O[:, None, None] if isinstance(layer, nn.Conv2d) else values_O


def lora_delta(up: Tensor, down: Tensor, scale: float) -> Tensor:
    """The learned change of a weight: scale * up @ down (Hu et al. 2021, eq. 3).

    up: O R, or O R 1 1; down: R I, or R I K K. Returns O I, or O I K K.
    """
    change = up.flatten(1) @ down.flatten(1) * scale
    return change.reshape(up.shape[0], *down.shape[1:])


def tucker(core: Tensor, outputs_RO: Tensor, inputs_RI: Tensor) -> Tensor:
    """A convolution's weight of a core R R K K between two matrices (Tucker 1966): O I K K."""
    return torch.einsum("pq..., po, qi -> oi...", core, outputs_RO, inputs_RI)


def strength(rank: int, alpha: float, *, rs_lora: bool) -> tuple[float, float]:
    """What the product of the factors is multiplied with, and the alpha that a file says."""
    alpha = alpha or float(rank)
    if rs_lora:
        return alpha / math.sqrt(rank), alpha * math.sqrt(rank)
    return alpha / rank, float(alpha)
