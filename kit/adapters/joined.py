"""LoRA of layers that read the same inputs, as q, k and v do: one product for all their downs.

Whichever of them is asked first computes for all, and the others hand out what is theirs. So no
attention needs to know of it; one that gives a layer other inputs finds it computing by itself.
What is kept for the backward pass are the inputs, once, and what lies between the factors.

Shapes: N places (all images' together), I inputs, O outputs, S the ranks of all layers together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from kit.adapters.folded import Fold, add_up, is_for_mkl, whole_linear
from kit.families import products


class Joined:
    """Plain linear layers with their folds, whose downs lie side by side."""

    def __init__(
        self, members: Sequence[tuple[nn.Linear, Fold]], down_SI: Tensor, down_gradient_SI: Tensor
    ) -> None:
        """down_SI: the downs of all, in the members' order, and where their gradients belong."""
        self.layers = [layer for layer, _ in members]
        self.folds = [fold for _, fold in members]
        self.down_SI, self.down_gradient_SI = down_SI, down_gradient_SI
        self.ranks: list[slice] = []
        for fold in self.folds:
            start = self.ranks[-1].stop if self.ranks else 0
            self.ranks.append(slice(start, start + len(fold.down_RI)))
        self._inputs: Tensor | None = None
        self._waiting: dict[int, Tensor] = {}  # outputs that their layers have not been asked for

    def output(self, member: int, inputs: Tensor) -> Tensor:
        """What one of the layers makes of these inputs, with its LoRA."""
        if self._inputs is not inputs or member not in self._waiting:
            if len({fold.learns for fold in self.folds}) > 1:
                return whole_linear(self.layers[member], inputs, self.folds[member])
            outputs = _Joined.apply(inputs, self, self.folds[0].weights[0][0])
            self._inputs, self._waiting = inputs, dict(enumerate(outputs))
        output = self._waiting.pop(member)
        if not self._waiting:
            self._inputs = None
        return output

    def learn(self, gradients_NO: Sequence[Tensor], inputs_NI: Tensor, hidden_NS: Tensor) -> Tensor:
        """Add the gradients of all factors; returns that of what lies between them."""
        each = list(zip(self.folds, self.ranks, gradients_NO, strict=True))
        turns = is_for_mkl(hidden_NS)  # see `kit.adapters.folded.between`
        found = hidden_NS.new_empty(hidden_NS.shape[::-1] if turns else hidden_NS.shape)
        hidden_gradient_NS = found.T if turns else found
        for fold, ranks, gradient_NO in each:
            if turns:
                torch.mm(fold.up_OR.T, gradient_NO.T, out=found[ranks])
            else:
                torch.mm(gradient_NO, fold.up_OR, out=found[:, ranks])
        if self.folds[0].learns:
            for fold, ranks, gradient_NO in each:
                add_up(fold.up_gradient_OR, gradient_NO, hidden_NS[:, ranks])
            strength = self.folds[0].strength
            self.down_gradient_SI.addmm_(hidden_gradient_NS.T, inputs_NI, alpha=strength)
            for fold in self.folds:
                fold.told()
        return hidden_gradient_NS


class _Joined(Function):
    # The last input is a weight that learns, as in `kit.adapters.folded`.

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, joined: Joined, _: Tensor) -> tuple[Tensor, ...]:
        inputs_NI = inputs.reshape(-1, inputs.shape[-1])
        hidden_NS = inputs_NI @ joined.down_SI.T
        outputs = []
        for layer, fold, ranks in zip(joined.layers, joined.folds, joined.ranks, strict=True):
            output_NO = products.linear(inputs_NI, layer.weight, layer.bias)
            output_NO.addmm_(hidden_NS[:, ranks], fold.up_OR.T)
            outputs.append(output_NO.view(*inputs.shape[:-1], -1))
        ctx.save_for_backward(inputs_NI, hidden_NS)
        ctx.joined, ctx.shape = joined, inputs.shape
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        joined, (inputs_NI, hidden_NS) = ctx.joined, ctx.saved_tensors
        gradients_NO = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        hidden_gradient_NS = joined.learn(gradients_NO, inputs_NI, hidden_NS)
        if not ctx.needs_input_grad[0]:
            return None, None, None
        to_inputs = hidden_gradient_NS @ joined.down_SI
        for layer, gradient_NO in zip(joined.layers, gradients_NO, strict=True):
            products.add_back(to_inputs, gradient_NO, layer.weight)
        return to_inputs.view(ctx.shape), None, None
