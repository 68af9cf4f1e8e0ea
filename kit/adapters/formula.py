"""The base of LyCORIS' types: tensors by role, and dropouts that act on the layer's change.

Shapes: O outputs of the layer, I inputs, R rank, K kernel side.
Source of roles, starts and formulas: https://github.com/KohakuBlueleaf/LyCORIS and its paper, Yeh
et al. 2023, https://arxiv.org/abs/2309.14859. Other than there, no change is ever added to a weight
in 16 bits: W + d - W loses a small d.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Parameter, functional

from kit.adapters.base import (
    AdaptedLayer,
    Adapter,
    Start,
    applied,
    begin,
    number_in,
    per_output,
    weight_shape,
)
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shapes


class Formula(Adapter):
    """An adapter that is a formula of tensors, which are named as in its file.

    Dropouts are LyCORIS': `dropout` takes single values of the change, `rank_dropout` whole outputs
    of it, the same for all images; `rank_dropout_scale` strengthens what remains.
    """

    STARTS: ClassVar[Mapping[str, Start]] = {}  # role: how it starts
    FAST: ClassVar[tuple[str, ...]] = ()
    # The change is proportional to these together, so they take what scales it: another program's
    # alpha, a limit of the norm, the learned scalar. Of each row the first that is there.
    LINEAR: ClassVar[tuple[tuple[str, ...], ...]] = ()

    alpha: Tensor

    def __init__(
        self,
        layer: AdaptedLayer,
        shapes: Shapes,
        *,
        dropout: float = 0.0,
        rank_dropout: float = 0.0,
        rank_dropout_scale: bool = False,
        module_dropout: float = 0.0,
    ) -> None:
        """shapes: as `kit.catalog.lora_shapes` has them, or those of a file to go on from."""
        super().__init__()
        self._beside = (layer,)  # in a tuple, so that torch does not count it as ours
        self.dropout, self.rank_dropout = dropout, rank_dropout
        self.rank_dropout_scale, self.module_dropout = rank_dropout_scale, module_dropout
        self.scale = 1.0
        self.roles = tuple(shapes)
        for role, shape in shapes.items():
            self.register_parameter(_attribute(role), Parameter(torch.zeros(shape)))

    @property
    def layer(self) -> AdaptedLayer:
        """The layer that it changes."""
        return self._beside[0]

    def part(self, role: str) -> Parameter:
        """A tensor by its role."""
        return self.get_parameter(_attribute(role))

    def has(self, *roles: str) -> bool:
        """These tensors are there; which are decides the formula."""
        return set(roles) <= set(self.roles)

    def set_alpha(self, rank: int, alpha: float, *, rs_lora: bool = False) -> None:
        """The strength is alpha / rank, or alpha / sqrt(rank) (rsLoRA); 0 means alpha = rank.

        Files say alpha, and every reader divides it by the rank, so that is what is kept.
        Source: Kalajdzievski 2023, https://arxiv.org/abs/2312.03732.
        """
        self.rank = rank
        self.scale, kept = strength(rank, alpha, rs_lora=rs_lora)
        self.register_buffer("alpha", torch.tensor(kept))

    @property
    def draws(self) -> bool:
        """The forward pass draws random numbers while training."""
        return bool(self.dropout or self.rank_dropout or self.module_dropout)

    def start(self, *address: int | str) -> None:
        """Each tensor by its own rule and address."""
        for role in self.roles:
            begin(self.part(role), self.STARTS[role], *address, role)

    def change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """The formula's change, dropped in part while training."""
        change = self.plain_change(inputs, output) * self.multiplier
        if self.training and self.dropout:
            change = functional.dropout(change, self.dropout)
        if self.training and self.rank_dropout:
            change = change * self._kept_outputs(change)
        return change

    def plain_change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """The change of the output at multiplier 1; here by way of the weight's change."""
        with torch.autocast(inputs.device.type, enabled=False):
            delta = self.delta()
        return applied(self.layer, inputs, delta)

    def _kept_outputs(self, change: Tensor) -> Tensor:
        outputs = self.channels()
        kept_O = (torch.rand(outputs, device=change.device) > self.rank_dropout).to(change.dtype)
        if self.rank_dropout_scale:
            kept_O = kept_O / kept_O.mean().clamp(min=1 / outputs)
        return self.per_channel(kept_O, change)

    def channels(self) -> int:
        """How many outputs there are."""
        return weight_shape(self.layer)[0]

    def per_channel(self, values_O: Tensor, _change: Tensor) -> Tensor:
        """One value for each output, in a shape that multiplies the change."""
        return per_output(self.layer, values_O)

    def base_weight(self) -> Tensor:
        """The layer's own weight, frozen, float32."""
        return self.layer.weight.detach().float()

    def tensors(self) -> dict[str, Tensor]:
        """By role, with alpha where the type has one."""
        found = {role: self.part(role).detach() for role in self.roles}
        return {**self._alpha(), **found}

    def _alpha(self) -> dict[str, Tensor]:
        alpha = self._buffers.get("alpha")
        return {} if alpha is None else {"alpha": alpha}

    def fast(self) -> tuple[Parameter, ...]:
        """The factor that starts as zeros."""
        return tuple(self.part(role) for role in self.FAST if self.has(role))

    @torch.no_grad()
    def shrink(self, share: float) -> None:
        """By the tensors that the change is proportional to."""
        for choices in self.LINEAR:
            self.part(next(role for role in choices if self.has(role))).mul_(share)

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """The file's strength is folded into what the change is proportional to."""
        given = {role: tensor for role, tensor in tensors.items() if role != "alpha"}
        lora_shapes.matched(
            {role: tuple(tensor.shape) for role, tensor in given.items()},
            {role: tuple(self.part(role).shape) for role in self.roles},
        )
        for role, tensor in given.items():
            self.part(role).copy_(tensor.float().reshape(self.part(role).shape))
        if self.LINEAR and "alpha" in self._buffers:
            alpha = number_in(tensors, "alpha", float(self.rank))
            self.shrink(self.file_scale(alpha) / self.scale)

    def file_scale(self, alpha: float) -> float:
        """The strength of a file with this alpha."""
        return alpha / self.rank


def strength(rank: int, alpha: float, *, rs_lora: bool) -> tuple[float, float]:
    """What the product of the factors is multiplied with, and the alpha that a file says."""
    alpha = alpha or float(rank)
    if rs_lora:
        return alpha / math.sqrt(rank), alpha * math.sqrt(rank)
    return alpha / rank, float(alpha)


def tucker(core: Tensor, outputs_RO: Tensor, inputs_RI: Tensor) -> Tensor:
    """A convolution's weight of a core R R K K between two matrices (Tucker 1966): O I K K."""
    return torch.einsum("pq..., po, qi -> oi...", core, outputs_RO, inputs_RI)


def _attribute(role: str) -> str:
    return role.replace(".", "_")
