"""LoHa: two low-rank products multiplied value by value, so the rank can be their product.

Shapes: O outputs, I inputs (times the kernel), R rank, K kernel side.
Source: FedPara, Hyeon-Woo et al. 2021, https://arxiv.org/abs/2108.06098, prop. 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kit.adapters.init import Start, normal, zeros
from kit.adapters.ops import AdaptedLayer, tucker, weight_shape
from kit.adapters.product import Product
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shape, Shapes


def loha_delta(one: tuple[Tensor, ...], two: tuple[Tensor, ...]) -> Tensor:
    """The learned change, without alpha: (A1 B1) * (A2 B2).

    A half is (A: O R, B: R I), or with Tucker (A: R O, B: R I, core: R R K K).
    """
    return _half(*one) * _half(*two)


def _half(a: Tensor, b: Tensor, core: Tensor | None = None) -> Tensor:
    return a @ b if core is None else tucker(core, a, b)


class Loha(Product):
    """LoHa beside one layer."""

    NEEDS = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})
    MAY = frozenset({"hada_t1", "hada_t2", "dora_scale"})
    FAST = ("hada_w2_a",)
    LINEAR = (("hada_w1_a",),)

    def __init__(
        self,
        layer: AdaptedLayer,
        *,
        rank: int,
        alpha: float,
        use_tucker: bool = False,
        dora_wd: bool = False,
        wd_on_output: bool = False,
        found: Shapes | None = None,
        **options: Any,
    ) -> None:
        """found: the shapes of a file's tensors, which count more than rank and options."""
        shape = weight_shape(layer)
        shapes = found or lora_shapes.loha(
            shape, rank, use_tucker=use_tucker, dora_wd=dora_wd, wd_on_output=wd_on_output
        )
        super().__init__(layer, shapes, rank=rank, alpha=alpha, **options)
        self._shape = shape

    @staticmethod
    def rank_of(shapes: Shapes) -> int:
        """The rank of a file's module."""
        return lora_shapes.side(shapes, "hada_w1_b")

    @classmethod
    def plain_shapes(cls, weight: Shape, found: Shapes) -> Shapes:
        """Two halves, with their cores where the file has them."""
        return lora_shapes.loha(weight, cls.rank_of(found), use_tucker="hada_t1" in found)

    def starts(self) -> Mapping[str, Start]:
        """One factor as zeros, unless a scalar of 0 stands before it."""
        return {
            "hada_w1_a": normal(0.1),
            "hada_w1_b": normal(1.0),
            "hada_w2_a": zeros if self.scalar is None else normal(0.1),
            "hada_w2_b": normal(1.0),
            "hada_t1": normal(0.1),
            "hada_t2": normal(0.1),
        }

    def product(self) -> Tensor:
        """Both halves, multiplied."""
        halves = []
        for half in ("1", "2"):
            parts = [self.part(f"hada_w{half}_a"), self.part(f"hada_w{half}_b")]
            if self.has(f"hada_t{half}"):
                parts.append(self.part(f"hada_t{half}"))
            halves.append(tuple(parts))
        return loha_delta(*halves).reshape(self._shape)
