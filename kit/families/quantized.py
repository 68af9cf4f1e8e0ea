"""Frozen layers whose weights are kept in few bits, and decoded as they are used.

Only weights are compressed: what flows through a layer keeps the training's precision, and so do
adapters, biases, norms and the layers at the U-Net's ends. For the backward pass a weight is
decoded once more rather than kept, so that memory holds one decoded weight at a time.

Shapes: O outputs, I inputs, K kernel side, ... whatever lies between.
Sources: LLM.int8, https://arxiv.org/abs/2208.07339 (scales per output); FP8 formats,
https://arxiv.org/abs/2209.05433; NF4 and frozen bases under adapters, QLoRA,
https://arxiv.org/abs/2305.14314.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

NF4_BLOCK = 64  # values that share a scale


class Packed(nn.Module):
    """A weight in few bits."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shape, self.dtype = weight.shape, weight.dtype

    def decoded(self, dtype: torch.dtype) -> Tensor:
        """The weight in its own shape."""
        raise NotImplementedError


class Scaled(Packed):
    """Values of 8 bits with a float32 scale for each output."""

    values: Tensor
    scale: Tensor
    largest: float
    kind: torch.dtype

    def __init__(self, weight: Tensor) -> None:
        """Encode; O I, or O I K K."""
        super().__init__(weight)
        rows = weight.detach().flatten(1).float()
        scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / self.largest
        self.register_buffer("scale", scale)
        # As bytes: a cast of the whole model to another precision then leaves them alone.
        self.register_buffer("values", self._rounded(rows / scale).view(torch.uint8))

    def _rounded(self, scaled: Tensor) -> Tensor:
        return scaled.to(self.kind)

    def decoded(self, dtype: torch.dtype) -> Tensor:
        """Values times scales, multiplied in float32."""
        rows = self.values.view(self.kind).float() * self.scale.float()
        return rows.reshape(self.shape).to(dtype)


class Int8(Scaled):
    """Whole numbers from -127 to 127."""

    largest, kind = 127.0, torch.int8

    def _rounded(self, scaled: Tensor) -> Tensor:
        return scaled.round().to(self.kind)


class Fp8(Scaled):
    """float8_e4m3: 3 bits of mantissa, up to 448."""

    largest, kind = 448.0, torch.float8_e4m3fn


class Nf4(Packed):
    """4 bits, at places that are as likely in a normal distribution, scaled per 64 values."""

    values: Tensor
    absmax: Tensor
    code: Tensor

    def __init__(self, weight: Tensor) -> None:
        """Encode; O I, or O I K K."""
        from bitsandbytes.functional import quantize_4bit

        super().__init__(weight)
        values, state = quantize_4bit(
            weight.detach().contiguous(), blocksize=NF4_BLOCK, quant_type="nf4"
        )
        self.register_buffer("values", values)
        self.register_buffer("absmax", state.absmax)
        self.register_buffer("code", state.code)

    def decoded(self, dtype: torch.dtype) -> Tensor:
        """Looked up and scaled, by bitsandbytes."""
        from bitsandbytes.functional import QuantState, dequantize_4bit

        state = QuantState(
            absmax=self.absmax.float(),
            shape=self.shape,
            code=self.code.float(),
            blocksize=NF4_BLOCK,
            quant_type="nf4",
            dtype=dtype,
        )
        return dequantize_4bit(self.values, quant_state=state).reshape(self.shape)


Pack = Callable[[Tensor], Packed]


class _Frozen(torch.autograd.Function):
    """A layer's output; backward to its input alone."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: _Compressed) -> Tensor:
        ctx.layer, ctx.shape = layer, inputs.shape
        return layer.computed(inputs, layer.packed.decoded(inputs.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        weight = ctx.layer.packed.decoded(gradients[0].dtype)
        return ctx.layer.backwards(gradients[0], ctx.shape, weight), None


class _Compressed(nn.Module):
    """What both kinds of layers share."""

    packed: Packed
    bias: nn.Parameter | None

    @property
    def weight(self) -> Tensor:
        """The decoded weight, for those who read it; changing it changes nothing."""
        return self.packed.decoded(self.packed.dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        """As the plain layer, in the precision of the inputs or of autocast."""
        kind = inputs.device.type
        if torch.is_autocast_enabled(kind):
            inputs = inputs.to(torch.get_autocast_dtype(kind))
        return cast(Tensor, _Frozen.apply(inputs, self))

    def computed(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """The layer's output."""
        raise NotImplementedError

    def backwards(self, gradient: Tensor, shape: torch.Size, weight: Tensor) -> Tensor:
        """The gradient of an input of that shape."""
        raise NotImplementedError

    def _bias(self, dtype: torch.dtype) -> Tensor | None:
        return None if self.bias is None else self.bias.to(dtype)


class CompressedLinear(_Compressed, nn.Linear):  # type: ignore[misc, override]
    """A linear layer, ... I to ... O."""

    def computed(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """Weight times inputs."""
        return functional.linear(inputs, weight, self._bias(inputs.dtype))

    def backwards(self, gradient: Tensor, shape: torch.Size, weight: Tensor) -> Tensor:
        """Gradient times weight."""
        return gradient @ weight


class CompressedConv2d(_Compressed, nn.Conv2d):  # type: ignore[misc, override]
    """A convolution."""

    def computed(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """The convolution."""
        return self._conv_forward(inputs, weight, self._bias(inputs.dtype))

    def backwards(self, gradient: Tensor, shape: torch.Size, weight: Tensor) -> Tensor:
        """The transposed convolution."""
        return conv2d_input(
            shape, weight, gradient, self.stride, self.padding, self.dilation, self.groups
        )


def compress(
    layers: Iterable[nn.Linear | nn.Conv2d],
    pack: Pack,
    pack_conv: Pack,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> None:
    """Turn layers into compressed ones, where they are, one weight at a time on the device.

    pack: what encodes a linear layer's weight; pack_conv: a convolution's; dtype: what weights are
    rounded to before; None: nothing.
    """
    for layer in layers:
        if isinstance(layer, CompressedLinear | CompressedConv2d):
            continue
        is_conv = isinstance(layer, nn.Conv2d)
        packed = (pack_conv if is_conv else pack)(
            layer.weight.detach().to(device=device, dtype=dtype)
        )
        del layer.weight
        layer.__class__ = CompressedConv2d if is_conv else CompressedLinear
        layer.packed = packed
