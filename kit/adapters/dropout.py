"""Rank dropout as the two families of LoRA types mean it: sd-scripts' and LyCORIS'.

Shapes: B batch, C channels (ranks, or outputs of the layer).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RankDropout:
    """sd-scripts': each sample loses ranks of its own; who uses it strengthens what remains."""

    share: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.share)

    def mask(self, hidden: Tensor, *, is_conv: bool) -> Tensor:
        """Zeros and ones per sample and rank, in a shape that multiplies `hidden`."""
        ranks = hidden.shape[1 if is_conv else -1]
        kept_BC = torch.rand(hidden.shape[0], ranks, device=hidden.device) > self.share
        between = (1,) * (hidden.dim() - 2)
        shape = (-1, ranks, *between) if is_conv else (-1, *between, ranks)
        return kept_BC.to(hidden.dtype).reshape(shape)


@dataclass(frozen=True)
class SharedDropout:
    """LyCORIS': all samples lose the same channels; `rescaled` strengthens what remains."""

    share: float = 0.0
    rescaled: bool = False

    def __bool__(self) -> bool:
        return bool(self.share)

    def mask(self, channels: int, values: Tensor) -> Tensor:
        """One number per channel, on the device and in the precision of `values`."""
        kept_C = (torch.rand(channels, device=values.device) > self.share).to(values.dtype)
        if self.rescaled:
            kept_C = kept_C / kept_C.mean().clamp(min=1 / channels)
        return kept_C
