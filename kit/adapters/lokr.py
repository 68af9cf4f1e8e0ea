"""LoKr: a small matrix says how copies of a large one are spread over the weight.

Shapes: the weight is O I (times K K) with O = P Q and I = S T; P S is the small factor's shape, Q T
(times K K) the large one's; R rank.
Source: LyCORIS, Yeh et al. 2023, https://arxiv.org/abs/2309.14859, sec. 3.2; the idea is KronA,
Edalati et al. 2022, https://arxiv.org/abs/2212.10650.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kit.adapters.init import Start, uniform, zeros
from kit.adapters.ops import AdaptedLayer, tucker, weight_shape
from kit.adapters.product import Product
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shape, Shapes

WHOLE, CORE = "lokr_w2", "lokr_t2"
TUCKER = (CORE, "lokr_w2_a", "lokr_w2_b")


def lokr_delta(small_PS: Tensor, large: Tensor) -> Tensor:
    """The learned change, without alpha: the Kronecker product; large is Q T or Q T K K."""
    small = small_PS.reshape(*small_PS.shape, *[1] * (large.dim() - 2))
    return torch.kron(small, large.contiguous())


class Lokr(Product):
    """LoKr beside one layer."""

    MAY = frozenset(
        f"lokr_{role}" for role in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
    ) | {"dora_scale"}
    FAST = ("lokr_w2", "lokr_w2_b")
    LINEAR = (("lokr_w1", "lokr_w1_a"),)

    def __init__(
        self,
        layer: AdaptedLayer,
        *,
        rank: int,
        alpha: float,
        factor: int = -1,
        decompose_both: bool = False,
        use_tucker: bool = False,
        dora_wd: bool = False,
        wd_on_output: bool = False,
        rs_lora: bool = False,
        found: Shapes | None = None,
        **options: Any,
    ) -> None:
        """found: the shapes of a file's tensors, which count more than rank and options.

        Where neither factor is of low rank, alpha has no meaning, and the strength is 1.
        """
        shape = weight_shape(layer)
        shapes = found or lora_shapes.lokr(
            shape,
            rank,
            factor=factor,
            decompose_both=decompose_both,
            use_tucker=use_tucker,
            dora_wd=dora_wd,
            wd_on_output=wd_on_output,
        )
        whole = _is_whole(shapes)
        if whole and not found:
            alpha, rs_lora = float(rank), False
        super().__init__(layer, shapes, rank=rank, alpha=alpha, rs_lora=rs_lora, **options)
        if whole:
            self.scale = 1.0

    @staticmethod
    def rank_of(shapes: Shapes) -> int:
        """The rank of a file's module; of whole factors, whose rank nobody divides by, 1."""
        low = next((role for role in ("lokr_w2_b", "lokr_w1_b") if role in shapes), None)
        return lora_shapes.side(shapes, low) if low else 1

    @classmethod
    def plain_shapes(cls, weight: Shape, found: Shapes) -> Shapes:
        """Factors as large as the file's."""
        return lora_shapes.lokr_like(weight, found)

    def starts(self) -> Mapping[str, Start]:
        """One factor as zeros, unless a scalar of 0 stands before it."""
        free = zeros if self.scalar is None else uniform
        others = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_t2")
        return {**dict.fromkeys(others, uniform), **dict.fromkeys(self.FAST, free)}

    def file_scale(self, alpha: float) -> float:
        """Readers ignore the alpha of whole factors."""
        return 1.0 if _is_whole(self.roles) else super().file_scale(alpha)

    def factors(self) -> tuple[Tensor, Tensor]:
        """The small and the large factor: P S and Q T (times K K)."""
        small = self._product("lokr_w1")
        if self.has("lokr_t2"):
            parts = (self.part(role) for role in ("lokr_t2", "lokr_w2_a", "lokr_w2_b"))
            return small, tucker(*parts)
        large = self._product("lokr_w2")
        kernel = weight_shape(self.layer)[2:]
        return small, large.reshape(large.shape[0], -1, *kernel)

    def _product(self, role: str) -> Tensor:
        """A factor, or the product of its low-rank halves."""
        if self.has(role):
            return self.part(role)
        return self.part(f"{role}_a") @ self.part(f"{role}_b")

    def product(self) -> Tensor:
        """The Kronecker product."""
        return lokr_delta(*self.factors())

    @torch.no_grad()
    def tensors(self) -> dict[str, Tensor]:
        """Tucker's parts as the one factor that they make: Forge and ComfyUI read no lokr_t2."""
        found = super().tensors()
        if not self.has(CORE):
            return found
        whole = self.factors()[1]
        if self.has("lokr_w1"):
            whole = whole * self.scale  # of two whole factors nobody reads the alpha
        return {role: t for role, t in found.items() if role not in TUCKER} | {WHOLE: whole}

    def unsaid(self) -> dict[str, float]:
        """The rank of Tucker's parts; 0 for a kernel without."""
        if not isinstance(self.layer, nn.Conv2d) or self.layer.kernel_size == (1, 1):
            return {}
        return {CORE: self.rank if self.has(CORE) else 0}

    def factored_change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """A linear layer's change factor by factor: the product itself is never built."""
        if isinstance(self.layer, nn.Conv2d):
            return super().factored_change(inputs, output)
        if not torch.is_autocast_enabled(inputs.device.type):
            inputs = inputs.float()
        small_PS, large_QT = self.factors()
        grouped = inputs.unflatten(-1, (small_PS.shape[1], large_QT.shape[1]))  # ... S T
        turned = (grouped @ large_QT.T).transpose(-1, -2)  # ... Q S
        change = (turned @ small_PS.T).transpose(-1, -2).flatten(-2) * self.scale  # ... P Q
        return change if self.scalar is None else change * self.scalar


def _is_whole(roles: Shapes | tuple[str, ...]) -> bool:
    return "lokr_w1" in roles and "lokr_w2" in roles
