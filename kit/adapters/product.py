"""Types whose change is a product of factors: what they share are a scalar and DoRA.

Shapes: O outputs of the layer, I inputs.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from kit.adapters.base import Adapter
from kit.adapters.init import begin
from kit.adapters.ops import AdaptedLayer, applied, weight_shape
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shape, Shapes
from kit.families.resting import as_placed

MAGNITUDE = "dora_scale"


def decomposed(weight: Tensor, change: Tensor, magnitude: Tensor) -> Tensor:
    """What DoRA adds to a weight: m (W + d) / |W + d| - W, the norms as the magnitudes lie.

    Written so that neither part is lost when d is small. Source: Liu et al. 2024,
    https://arxiv.org/abs/2402.09353, eq. 5, which takes the norms of inputs; LyCORIS takes those of
    outputs since 2025-04-14. Gradients of the norms are included, as there.
    """
    norms = lengths(weight + change, magnitude) + torch.finfo(weight.dtype).eps
    ratio = magnitude / norms
    return (ratio - 1) * weight + ratio * change


def lengths(weight: Tensor, magnitude: Tensor) -> Tensor:
    """The norms over the sides that the magnitudes have one of: O 1 1 1 or 1 I 1 1, as they are."""
    over = [side for side, size in enumerate(magnitude.shape) if size == 1]
    return torch.linalg.vector_norm(weight, dim=over, keepdim=True)


class Product(Adapter):
    """`product` is the formula; a scalar and DoRA's magnitudes come on top if asked for."""

    def __init__(
        self,
        layer: AdaptedLayer,
        shapes: Shapes,
        *,
        rank: int,
        alpha: float,
        rs_lora: bool = False,
        use_scalar: bool = False,
        **dropouts: Any,
    ) -> None:
        """use_scalar: the change is multiplied by a learned number that starts as 0."""
        super().__init__(layer, shapes, **dropouts)
        self.set_alpha(rank, alpha, rs_lora=rs_lora)
        self.scalar = Parameter(torch.zeros(())) if use_scalar else None

    @classmethod
    @abstractmethod
    def plain_shapes(cls, weight: Shape, found: Shapes) -> Shapes:
        """The factors' shapes for a weight O I (K K), with the rank and the parts of a file's.

        Raises: ValueError where there are none.
        """

    @classmethod
    def kept_of(cls, layer: Any, found: Shapes) -> Shapes:
        """The factors, and magnitudes on the axis where the file has them."""
        weight = weight_shape(layer)
        own = cls.plain_shapes(weight, found)
        if MAGNITUDE in found:
            on_output = lora_shapes.on_output(found[MAGNITUDE], weight)
            own[MAGNITUDE] = lora_shapes.magnitude(weight, on_output=on_output)
        return lora_shapes.matched(found, own)

    @abstractmethod
    def product(self) -> Tensor:
        """The change of the weight by the factors alone, in the weight's shape."""

    def start(self, *address: int | str) -> None:
        """With a scalar of 0 every factor starts as its kind does, or the gradients would be 0."""
        starts = self.starts()
        for role in self.roles:
            if role == MAGNITUDE:
                self._start_magnitude()
            else:
                begin(self.part(role), starts[role], *address, role)

    @torch.no_grad()
    def _start_magnitude(self) -> None:
        weight = as_placed(self.layer.weight).float()
        magnitude = self.part(MAGNITUDE)
        magnitude.copy_(lengths(weight, magnitude))

    def factored_delta(self) -> Tensor:
        """The product with its strength, without DoRA."""
        product = self.product() * self.scale
        return product if self.scalar is None else product * self.scalar

    def delta(self) -> Tensor:
        """The change of the weight."""
        change = self.factored_delta()
        if not self.has(MAGNITUDE):
            return change
        return decomposed(self.base_weight(), change, self.part(MAGNITUDE))

    def length(self) -> Tensor:
        """Of the factors' change: the magnitudes are not limited."""
        return self.factored_delta().norm()

    def tensors(self) -> dict[str, Tensor]:
        """The scalar goes into a factor: no file has it."""
        found = super().tensors()
        if self.scalar is not None:
            for choices in self.LINEAR:
                role = next(role for role in choices if self.has(role))
                found[role] = found[role] * self.scalar.detach()
        return found

    def take(self, tensors: Any) -> None:
        """The scalar starts as 1 then."""
        super().take(tensors)
        if self.scalar is not None:
            self.scalar.data.fill_(1.0)

    def plain_change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """By the factors where that is cheaper; with DoRA by the weight."""
        if self.has(MAGNITUDE):
            return super().plain_change(inputs, output)
        return self.factored_change(inputs, output)

    def factored_change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """The change without DoRA, at multiplier 1."""
        with torch.autocast(inputs.device.type, enabled=False):
            delta = self.factored_delta()
        return applied(self.layer, inputs, delta)
