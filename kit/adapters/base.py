"""The base of every LoRA type: a place beside one layer, a start, a change, a file's names.

A type brings the shapes of its tensors, its formula (`delta` of the layer's weight, and at will a
cheaper way to the change of its output) and the names of its tensors; hooks, dropouts, norms and
files are the same for all.

Shapes: O outputs of the layer.
Source of roles, starts and formulas of LyCORIS' types: https://github.com/KohakuBlueleaf/LyCORIS
and its paper, Yeh et al. 2023, https://arxiv.org/abs/2309.14859. Other than there, no change is
ever added to a weight in 16 bits: W + d - W loses a small d.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter, functional

from kit.adapters.dropout import SharedDropout
from kit.adapters.init import Start, begin
from kit.adapters.ops import AdaptedLayer, applied, per_output, strength, weight_shape
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shapes


class Adapter(nn.Module, ABC):
    """The learned change of one frozen layer; float32 whatever the layer's precision.

    It is a formula of tensors, which are named as in its file. Dropouts are LyCORIS' where a type
    has none of its own: `network_dropout` takes single values of the change, `rank_dropout` whole
    outputs of it, the same for all images; `rank_dropout_scale` strengthens what remains.
    """

    # The roles of a file's module that this type reads: these, and at will those.
    NEEDS: ClassVar[frozenset[str]] = frozenset()
    MAY: ClassVar[frozenset[str]] = frozenset()
    STARTS: ClassVar[Mapping[str, Start]] = {}  # role: how it starts
    # Of two factors the one that starts as zeros, whose rate LoRA+ raises.
    # Source: LoRA+, Hayou et al. 2024, https://arxiv.org/abs/2402.12354.
    FAST: ClassVar[tuple[str, ...]] = ()
    # The change is proportional to these together, so they take what scales it: another program's
    # alpha, a limit of the norm, the learned scalar. Of each row the first that is there.
    LINEAR: ClassVar[tuple[tuple[str, ...], ...]] = ()

    alpha: Tensor
    multiplier: float = 1.0  # 1 as trained, 0 not at all

    def __init__(
        self,
        layer: AdaptedLayer,
        shapes: Shapes,
        *,
        network_dropout: float = 0.0,
        rank_dropout: float = 0.0,
        rank_dropout_scale: bool = False,
        module_dropout: float = 0.0,
    ) -> None:
        """shapes: as `kit.catalog.lora_shapes` has them, or those of a file to go on from."""
        super().__init__()
        self._beside = (layer,)  # in a tuple, so that torch does not count it as ours
        self.dropout, self.module_dropout = network_dropout, module_dropout
        self.output_dropout = SharedDropout(rank_dropout, rescaled=rank_dropout_scale)
        self.scale = 1.0
        self.roles = tuple(shapes)
        for role, shape in shapes.items():
            self.add_part(role, Parameter(torch.zeros(shape)))

    @classmethod
    def reads(cls, shapes: Shapes) -> bool:
        """A file's module with these roles is of this type."""
        return bool(shapes) and cls.NEEDS <= shapes.keys() <= cls.NEEDS | cls.MAY

    @staticmethod
    def rank_of(shapes: Shapes) -> int:
        """The rank of a file's module; 0 for types without one.

        Raises: ValueError where its tensors have none.
        """
        return 0

    @classmethod
    @abstractmethod
    def kept_of(cls, layer: Any, found: Shapes) -> Shapes:
        """The shapes in which this type keeps a file's module beside the layer.

        Raises: ValueError where the module does not fit the layer.
        """

    @staticmethod
    def options_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """What a file's module decides beside shapes, rank and alpha.

        Raises: ValueError where that cannot be read.
        """
        return {}

    @property
    def layer(self) -> AdaptedLayer:
        """The layer that it changes."""
        return self._beside[0]

    def add_part(self, role: str, weight: Parameter) -> None:
        """Keep a tensor; under which name is a run's state's format."""
        self.register_parameter(role.replace(".", "_"), weight)

    def part(self, role: str) -> Parameter:
        """A tensor by its role."""
        return self.get_parameter(role.replace(".", "_"))

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
        return bool(self.dropout or self.output_dropout or self.module_dropout)

    @property
    def decides_on_host(self) -> bool:
        """What it drew decides which calls are made, so a step of it cannot be replayed."""
        return bool(self.module_dropout)

    def starts(self) -> Mapping[str, Start]:
        """How each tensor starts, by role."""
        return self.STARTS

    def start(self, *address: int | str) -> None:
        """Draw the first weights, each by its own rule and address; untrained, nothing changes."""
        starts = self.starts()
        for role in self.roles:
            begin(self.part(role), starts[role], *address, role)

    def change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """The change of the layer's output, at this multiplier, dropped in part while training."""
        change = self.plain_change(inputs, output) * self.multiplier
        if self.training and self.dropout:
            change = functional.dropout(change, self.dropout)
        if self.training and self.output_dropout:
            kept_O = self.output_dropout.mask(self.channels(), change)
            change = change * self.per_channel(kept_O, change)
        return change

    def plain_change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """The change of the output at multiplier 1; here by way of the weight's change."""
        with torch.autocast(inputs.device.type, enabled=False):
            delta = self.delta()
        return applied(self.layer, inputs, delta)

    @abstractmethod
    def delta(self) -> Tensor:
        """The change of the layer's weight at multiplier 1, float32, in the weight's shape."""

    def delta_bias(self) -> Tensor | None:
        """The change of the layer's bias at multiplier 1, for types that change it."""
        return None

    def channels(self) -> int:
        """How many outputs there are."""
        return weight_shape(self.layer)[0]

    def per_channel(self, values_O: Tensor, _change: Tensor) -> Tensor:
        """One value for each output, in a shape that multiplies the change."""
        return per_output(self.layer, values_O)

    def base_weight(self) -> Tensor:
        """The layer's own weight, frozen, float32."""
        return self.layer.weight.detach().float()

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Start from a file's tensors by role, so that the layer changes as it did there.

        The file's strength is folded into what the change is proportional to: ours stays.

        Raises: ValueError where they do not fit.
        """
        given = {role: tensor for role, tensor in tensors.items() if role != "alpha"}
        lora_shapes.matched(
            {role: tuple(tensor.shape) for role, tensor in given.items()},
            {role: tuple(self.part(role).shape) for role in self.roles},
        )
        for role, tensor in given.items():
            self.part(role).copy_(tensor.float().reshape(self.part(role).shape))
        if self.LINEAR and "alpha" in self._buffers:
            alpha = number_in(tensors, "alpha", float(self.rank))
            self._scale_linear(self.file_scale(alpha) / self.scale)

    def file_scale(self, alpha: float) -> float:
        """The strength of a file with this alpha."""
        return alpha / self.rank

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of it, by role, such as `lora_up.weight`; alpha where it has one."""
        alpha = self._buffers.get("alpha")
        found = {} if alpha is None else {"alpha": alpha}
        return {**found, **{role: self.part(role).detach() for role in self.roles}}

    def unsaid(self) -> dict[str, float]:
        """What its tensors do not say in a file, by name, and going on from there needs."""
        return {}

    def learning(self) -> tuple[Parameter, ...]:
        """The weights that may learn; what is not among them stays as it started."""
        return tuple(self.parameters())

    def lies(self, _weight: Parameter) -> tuple[float, ...]:
        """Which weights lie side by side in a buffer: those for which this is the same."""
        return ()

    def fast(self) -> tuple[Parameter, ...]:
        """The factor that starts as zeros, whose rate LoRA+ raises; nothing where there is none."""
        return tuple(self.part(role) for role in self.FAST if self.has(role))

    def add_to(self, _layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """The layer's forward hook: its output with the change added."""
        if self.multiplier == 0 or (
            self.training and self.module_dropout and torch.rand(()).item() < self.module_dropout
        ):
            return output
        return output + self.change(inputs[0], output).to(output.dtype)

    def unfold(self) -> None:
        """Compute with the weights themselves from now on; only some types ever do otherwise."""

    def length(self) -> Tensor:
        """How long the change of the weight is (Frobenius norm): one number, on the device."""
        return self.delta().norm()

    @torch.no_grad()
    def limit_norm(self, longest: float, length: float | None = None) -> tuple[float, bool]:
        """Scale the weights so that the change is no longer than `longest`.

        length: how long it is, where that was read already.

        Returns the norm afterwards and whether it was scaled. Source: max-norm regularisation,
        https://github.com/kohya-ss/sd-scripts/pull/545 (behaviour).
        """
        length = self.length().item() if length is None else length
        if length <= longest:
            return length, False
        self.shrink(longest / length)
        return longest, True

    @torch.no_grad()
    def shrink(self, share: float) -> None:
        """Scale the change to this share of itself; types that cannot are never asked."""
        self._scale_linear(share)

    def _scale_linear(self, share: float) -> None:
        for choices in self.LINEAR:
            self.part(next(role for role in choices if self.has(role))).mul_(share)


def number_in(tensors: Mapping[str, Tensor], role: str, otherwise: float = 0.0) -> float:
    """The one number that a file's tensor holds, such as alpha; what stands for a missing one.

    Raises: ValueError where it holds more, or nothing finite.
    """
    if role not in tensors:
        return otherwise
    tensor = tensors[role]
    if tensor.numel() != 1:
        raise ValueError(f"{role} has the shape {tuple(tensor.shape)}, and is one number")
    number = float(tensor.float())
    if not math.isfinite(number):
        raise ValueError(f"{role} is {number}")
    return number
