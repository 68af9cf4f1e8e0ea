"""Convolutions of few places on a CPU: one product of matrices, which reads the weights once.

At 4 or 16 places a step waits for the weights of a convolution, not for its arithmetic. torch lays
them out anew for each call, or multiplies them in an order that reads them in short pieces.
Measured in core-milliseconds (fp32, AVX-512, forward and backward pass to the inputs):

    channels          places   torch          here
    1280 -> 1280       2 x 2    20 and  24      6 and  8
    2560 -> 1280       2 x 2    37 and  67     13 and  16
    2560 -> 1280       4 x 4    80 and  75     27 and  28
    1280 -> 1280, /2   4 x 4    39 and  43     11 and  10
    1280 ->  640       8 x 8    14 and  13     13 and  13
    1280 -> 1280      16 x 8    40 and  41     47 and  47   so torch computes it

Shapes: B batch, C input channels, O output channels, H W height and width, K the C x kernel numbers
that one output place is made of, M all output places of a batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kit.families import products

LEAST_WEIGHTS = 2**20  # fewer stay in the caches of a core, and torch is as quick
MOST_PLACES = 64
# torch's own kernels are slow where so many channels come in: 1920 -> 640 as well as 2560 -> 1280.
MANY_CHANNELS, THEIR_PLACES = 1920, 192
# Up to so many, and from MOST_PLACES on, gradients are multiplied row by row, which is quicker.
ROW_PLACES = 8


def quicken(module: nn.Module) -> None:
    """Let the frozen fp32 convolutions of a module on a CPU take the quicker way, where it is.

    Their weights stay where they are, and so do their names.
    """
    for layer in module.modules():
        if type(layer) is not nn.Conv2d or layer.weight.numel() < LEAST_WEIGHTS:
            continue
        if layer.groups == 1 and layer.padding_mode == "zeros" and isinstance(layer.padding, tuple):
            layer.__class__ = FewPlacesConv2d


class FewPlacesConv2d(nn.Conv2d):
    """A convolution that is a product of matrices where its output has few places."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._pays(input, weight, bias):
            return super()._conv_forward(input, weight, bias)
        output: Tensor = _Product.apply(input, weight, bias, self._geometry())
        return output

    def _pays(self, input_BCHW: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        if input_BCHW.dim() != 4 or input_BCHW.device.type != "cpu":
            return False
        if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
            return False
        if not input_BCHW.dtype == weight.dtype == torch.float32:
            return False
        if weight.requires_grad or (bias is not None and bias.requires_grad):
            return False  # the product gives no gradient to them
        height, width = _output_size(input_BCHW.shape, self._geometry())
        many = input_BCHW.shape[1] >= MANY_CHANNELS
        return len(input_BCHW) * height * width <= (THEIR_PLACES if many else MOST_PLACES)

    def _geometry(self) -> dict[str, Any]:
        """As unfold and fold want it."""
        return {
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            "padding": self.padding,
            "stride": self.stride,
        }


class _Product(torch.autograd.Function):
    """The convolution as patches times weights; its gradient goes to the inputs alone."""

    @staticmethod
    def forward(
        ctx: Any, input_BCHW: Tensor, weight: Tensor, bias: Tensor | None, geometry: dict[str, Any]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.geometry = input_BCHW.shape, geometry
        patches_BKN = functional.unfold(input_BCHW, **geometry)
        patches_MK = patches_BKN.transpose(1, 2).flatten(0, 1)
        output_MO = products.linear(patches_MK, weight.flatten(1), bias)
        size = _output_size(input_BCHW.shape, geometry)
        return output_MO.reshape(-1, *size, len(weight)).permute(0, 3, 1, 2).contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BOHW: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        weight_OK, batch = weight.flatten(1), len(gradient_BOHW)
        gradient_MO = gradient_BOHW.permute(0, 2, 3, 1).flatten(0, 2)
        if ROW_PLACES < len(gradient_MO) < MOST_PLACES:
            patches_KM = weight_OK.t() @ gradient_MO.t()
            patches_BKN = patches_KM.unflatten(1, (batch, -1)).transpose(0, 1)
        else:
            patches_MK = products.back(gradient_MO, weight_OK)
            patches_BKN = patches_MK.unflatten(0, (batch, -1)).transpose(1, 2)
        inputs = functional.fold(patches_BKN, ctx.shape[2:], **ctx.geometry)
        return inputs, None, None, None


def _output_size(shape: torch.Size, geometry: dict[str, Any]) -> tuple[int, int]:
    """Height and width of the output for inputs of that shape."""
    names = ("padding", "dilation", "kernel_size", "stride")
    sides = zip(shape[2:], *(geometry[name] for name in names), strict=True)
    height, width = (
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for side, padding, dilation, kernel, stride in sides
    )
    return height, width
