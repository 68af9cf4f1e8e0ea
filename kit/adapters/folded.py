"""LoRA with the fewest products: one function for a layer and the LoRA beside it.

    output = layer(inputs) + inputs @ down.T @ up.T

The weights are views of copies in the precision that the layer computes in, and down has the
LoRA's strength in it. The gradients of both go straight into a buffer of that precision, whose
sums `kit.training.copies` brings to the float32 weights. What is kept for the backward pass are
the inputs and what lies between the factors.

Shapes: N places (all images' together), B batch, I inputs, O outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import Parameter

from kit.families import products


@dataclass
class Fold:
    """What an adapter computes with while `is_on` says so; gradients of the copies lie beside."""

    is_on: Callable[[], bool]
    up_OR: Tensor
    down_RI: Tensor
    up_gradient_OR: Tensor
    down_gradient_RI: Tensor
    weights: tuple[tuple[Parameter, Tensor], ...]  # those that learn, and their own gradients
    strength: float = 1.0  # lies in down; its gradient is that of the weight without it

    @property
    def learns(self) -> bool:
        """The weights are not frozen in mid-run."""
        return self.weights[0][0].requires_grad

    def told(self) -> None:
        """There is a gradient now, which the optimizer goes by."""
        for weight, gradient in self.weights:
            if weight.grad is not gradient:
                if weight.grad is not None:  # it was used elsewhere, too
                    gradient.add_(weight.grad)
                weight.grad = gradient


def whole_linear(layer: nn.Linear, inputs: Tensor, fold: Fold) -> Tensor:
    """A plain linear layer with its LoRA."""
    return cast(Tensor, _Linear.apply(inputs, layer.weight, layer.bias, fold, fold.weights[0][0]))


def beside(layer: nn.Linear | nn.Conv2d, inputs: Tensor, output: Tensor, fold: Fold) -> Tensor:
    """The output of a layer that computes itself, with its LoRA; convolutions see single places."""
    kind = _BesidePointwise if isinstance(layer, nn.Conv2d) else _BesideLinear
    return cast(Tensor, kind.apply(inputs, output, fold, fold.weights[0][0]))


def can_fold(layer: nn.Module) -> bool:
    """A linear layer, or a convolution that sees single places."""
    if isinstance(layer, nn.Conv2d):
        plain = (layer.kernel_size, layer.stride, layer.padding, layer.groups)
        return plain == ((1, 1), (1, 1), (0, 0), 1)
    return isinstance(layer, nn.Linear)


def is_plain(layer: nn.Module) -> bool:
    """A linear layer whose weight is what it seems, not stored in fewer bits."""
    return type(layer) is nn.Linear


# The last input of each function is a weight that learns: it makes torch ask for a gradient also
# where the inputs have none, as of the first layer. Its gradient is written by hand.


class _Linear(Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, fold: Fold, _: Tensor
    ) -> Tensor:
        inputs_NI = inputs.reshape(-1, inputs.shape[-1])
        hidden_NR = inputs_NI @ fold.down_RI.T
        output_NO = products.linear(inputs_NI, weight, bias)
        output_NO.addmm_(hidden_NR, fold.up_OR.T)
        ctx.save_for_backward(inputs_NI, hidden_NR)
        ctx.weight, ctx.fold, ctx.shape = weight, fold, inputs.shape
        return output_NO.view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        fold, weight = ctx.fold, ctx.weight
        gradient_NO = gradients[0].reshape(-1, weight.shape[0])
        hidden_gradient_NR = between(gradient_NO, fold.up_OR)
        _learn(ctx, gradient_NO, hidden_gradient_NR)
        to_inputs = None
        if ctx.needs_input_grad[0]:
            to_inputs = products.back(gradient_NO, weight)
            to_inputs = to_inputs.addmm_(hidden_gradient_NR, fold.down_RI).view(ctx.shape)
        return to_inputs, None, None, None, None


class _BesideLinear(Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, output: Tensor, fold: Fold, _: Tensor) -> Tensor:
        inputs_NI = inputs.reshape(-1, inputs.shape[-1])
        hidden_NR = inputs_NI @ fold.down_RI.T
        ctx.save_for_backward(inputs_NI, hidden_NR)
        ctx.fold, ctx.shape = fold, inputs.shape
        output_NO = output.reshape(-1, output.shape[-1])
        return torch.addmm(output_NO, hidden_NR, fold.up_OR.T).view(output.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        fold, gradient = ctx.fold, gradients[0]
        gradient_NO = gradient.reshape(-1, gradient.shape[-1])
        hidden_gradient_NR = between(gradient_NO, fold.up_OR)
        _learn(ctx, gradient_NO, hidden_gradient_NR)
        to_inputs = None
        if ctx.needs_input_grad[0]:
            to_inputs = (hidden_gradient_NR @ fold.down_RI).view(ctx.shape)
        return to_inputs, gradient, None, None


def _learn(ctx: Any, gradient_NO: Tensor, hidden_gradient_NR: Tensor) -> None:
    fold = ctx.fold
    if fold.learns:
        inputs_NI, hidden_NR = ctx.saved_tensors
        add_up(fold.up_gradient_OR, gradient_NO, hidden_NR)
        fold.down_gradient_RI.addmm_(hidden_gradient_NR.T, inputs_NI, alpha=fold.strength)
        fold.told()


# The outputs' gradients are what is large here. MKL takes much longer where the result's rows are
# theirs, as the formulas have it (2048 places, 2560 outputs: 18 ms against 3, 7 against 3).


def between(gradient_NO: Tensor, up_OR: Tensor) -> Tensor:
    """The gradient of what lies between the factors, shape N R."""
    if not is_for_mkl(gradient_NO):
        return gradient_NO @ up_OR
    return (up_OR.T @ gradient_NO.T).T


def add_up(to_OR: Tensor, gradient_NO: Tensor, hidden_NR: Tensor) -> None:
    """Add the gradient of up."""
    if not is_for_mkl(gradient_NO):
        to_OR.addmm_(gradient_NO.T, hidden_NR)
    else:
        to_OR.add_((hidden_NR.T @ gradient_NO).T)


def is_for_mkl(matrix: Tensor) -> bool:
    """Whether a CPU computes with it in float32."""
    return matrix.device.type == "cpu" and matrix.dtype is torch.float32


class _BesidePointwise(Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, output: Tensor, fold: Fold, _: Tensor) -> Tensor:
        inputs_BIN = inputs.flatten(2)
        hidden_BRN = _products(fold.down_RI, inputs_BIN)
        ctx.save_for_backward(inputs_BIN, hidden_BRN)
        ctx.fold, ctx.shape = fold, inputs.shape
        return _products(fold.up_OR, hidden_BRN, to=output.flatten(2)).view(output.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        fold, gradient = ctx.fold, gradients[0]
        gradient_BON = gradient.flatten(2)
        hidden_gradient_BRN = _products(fold.up_OR.T, gradient_BON)
        if fold.learns:
            inputs_BIN, hidden_BRN = ctx.saved_tensors
            fold.up_gradient_OR.addbmm_(gradient_BON, hidden_BRN.transpose(1, 2))
            inputs_BNI, strength = inputs_BIN.transpose(1, 2), fold.strength
            fold.down_gradient_RI.addbmm_(hidden_gradient_BRN, inputs_BNI, alpha=strength)
            fold.told()
        to_inputs = None
        if ctx.needs_input_grad[0]:
            to_inputs = _products(fold.down_RI.T, hidden_gradient_BRN).view(ctx.shape)
        return to_inputs, gradient, None, None


def _products(matrix: Tensor, images: Tensor, *, to: Tensor | None = None) -> Tensor:
    """The matrix by each image, added to another image where there is one."""
    if images.device.type != "cpu":
        each = matrix.expand(len(images), *matrix.shape)
        return torch.bmm(each, images) if to is None else torch.baddbmm(to, each, images)
    # A CPU's kernel for several products at once adds up in 16 bits.
    if to is None:
        found = [matrix @ image for image in images]
    else:
        found = [torch.addmm(one, matrix, image) for one, image in zip(to, images, strict=True)]
    return found[0][None] if len(found) == 1 else torch.stack(found)
