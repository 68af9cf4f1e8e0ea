"""Types without factors: iA3 scales inputs or outputs, full learns the whole difference.

Source: iA3, Liu et al. 2022, https://arxiv.org/abs/2205.05638; file formats are LyCORIS'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from kit.adapters.base import Adapter, number_in
from kit.adapters.init import Start, zeros
from kit.adapters.ops import AdaptedLayer, applied, per_output, weight_shape, without_bias
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shapes


class Ia3(Adapter):
    """One learned factor, 1 + w, for each input or each output of the layer."""

    STARTS: ClassVar[Mapping[str, Start]] = {"weight": zeros}
    NEEDS = frozenset({"weight", "on_input"})
    on_input: Tensor

    def __init__(
        self,
        layer: AdaptedLayer,
        *,
        rank: int = 0,
        alpha: float = 0.0,
        train_on_input: bool = False,
        found: Shapes | None = None,
        **dropouts: Any,
    ) -> None:
        """There is no rank and no alpha, and the mark of a file counts, not its shapes."""
        own = lora_shapes.ia3(weight_shape(layer), train_on_input=train_on_input)
        super().__init__(layer, {"weight": own["weight"]}, **dropouts)
        self.register_buffer("on_input", torch.tensor(int(train_on_input)))
        self.train_on_input = train_on_input

    @classmethod
    def kept_of(cls, layer: Any, found: Shapes) -> Shapes:
        """As in the file: the mark, which is no shape, says whether it fits inputs or outputs."""
        return found

    @staticmethod
    def options_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The mark."""
        return {"train_on_input": bool(number_in(tensors, "on_input"))}

    def delta(self) -> Tensor:
        """The weight times the factors, less the weight."""
        weight, factors = self.base_weight(), self.part("weight").reshape(-1)
        where = (1, -1) if self.train_on_input else (-1, 1)
        return weight * factors.reshape(*where, *[1] * (weight.dim() - 2))

    def plain_change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """Scaled inputs go through the layer's weight once more; outputs are scaled as they are."""
        factors = per_output(self.layer, self.part("weight"))
        if self.train_on_input:
            return applied(self.layer, inputs * factors, self.layer.weight)
        return without_bias(self.layer, output) * factors

    def tensors(self) -> dict[str, Tensor]:
        """With the mark that says which side is scaled."""
        return {**super().tensors(), "on_input": self.on_input}

    def take(self, tensors: Any) -> None:
        """The mark must be ours.

        Raises: ValueError where it is not.
        """
        on_input = bool(number_in(tensors, "on_input"))
        if on_input != self.train_on_input:
            sides = {True: "inputs", False: "outputs"}
            raise ValueError(
                f"it scales {sides[on_input]}, here train_on_input asks for "
                f"{sides[self.train_on_input]}"
            )
        given = {role: t for role, t in tensors.items() if role != "on_input"}
        values, own = tensors["weight"], self.part("weight").shape
        if [side for side in values.shape if side != 1] == [side for side in own if side != 1]:
            given["weight"] = values.reshape(own)  # of a linear layer I, of a convolution 1 I 1 1
        super().take(given)


class Full(Adapter):
    """The difference of the weight, and of the bias where there is one."""

    STARTS: ClassVar[Mapping[str, Start]] = {"diff": zeros, "diff_b": zeros}
    NEEDS = frozenset({"diff"})
    MAY = frozenset({"diff_b"})

    def __init__(
        self,
        layer: AdaptedLayer,
        *,
        rank: int = 0,
        alpha: float = 0.0,
        found: Shapes | None = None,
        **dropouts: Any,
    ) -> None:
        """There is no rank and no alpha."""
        has_bias = layer.bias is not None
        own = lora_shapes.full(weight_shape(layer), has_bias=has_bias)
        super().__init__(layer, found or own, **dropouts)

    @classmethod
    def kept_of(cls, layer: Any, found: Shapes) -> Shapes:
        """The difference of the weight, and of the bias where the file has one."""
        own = lora_shapes.full(weight_shape(layer), has_bias="diff_b" in found)
        if "diff_b" in found and layer.bias is None:
            raise ValueError("the file has diff_b; here the layer has no bias")
        return lora_shapes.matched(found, own)

    def delta(self) -> Tensor:
        """The difference itself."""
        return self.part("diff") * 1.0

    def delta_bias(self) -> Tensor | None:
        """The difference of the bias."""
        return self.part("diff_b") * 1.0 if self.has("diff_b") else None

    def plain_change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """The inputs by the difference, and the bias' difference."""
        change = applied(self.layer, inputs, self.part("diff"))
        if self.has("diff_b"):
            change = change + per_output(self.layer, self.part("diff_b"))
        return change
