"""A network in the precision that it computes in: one copy of all weights, made once per batch.

Weights, gradients and averages stay float32; layers see copies of the weights, and write gradients
beside them. Two kernels bring copies up to date, and one their gradients back, however many
weights there are. So no layer casts anything, and autocast is not needed.

It is for LoRA whose weights lie in one buffer and whose forward pass draws nothing; other types
compute under autocast, with their own gradients, as ever.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from kit.adapters.folded import Fold, can_fold
from kit.adapters.lora import DOWN, UP, Lora
from kit.adapters.network import Network
from kit.families import Family
from kit.optim.flat import Flat, Place, flat_of


class Copies:
    """The copies of a network's weights, with their gradients.

    They hold from `refresh` to `gather`; outside, adapters compute with the weights themselves.
    """

    def __init__(self, network: Network, flat: Flat, dtype: torch.dtype) -> None:
        """dtype: what the frozen base computes in."""
        buffers = self._buffers = flat.buffers
        self._strengths = torch.ones_like(buffers.weights, dtype=torch.float32)
        self._weights = torch.zeros_like(buffers.weights, dtype=dtype)
        self._gradients = torch.zeros_like(self._weights)
        self.are_fresh = False
        places = {place.weight: place for place in buffers.places}
        for _, adapter in network.named():
            if isinstance(adapter, Lora):
                adapter.computes_as_base = True
                if can_fold(adapter.layer):
                    self._fold(adapter, places)

    def refresh(self) -> None:
        """Copy the weights as they are now; they have no gradients yet."""
        assert self._buffers.hold_weights, "another optimizer has moved the weights elsewhere"
        torch.mul(self._buffers.weights, self._strengths, out=self._weights)
        self._gradients.zero_()
        self.are_fresh = True

    def gather(self) -> None:
        """Add the gradients of the copies to those of the weights."""
        self._buffers.gradients.add_(self._gradients)
        self.are_fresh = False

    def _fold(self, adapter: Lora, places: dict[Parameter, Place]) -> None:
        up, down = adapter.part(UP), adapter.part(DOWN)
        if not {up, down} <= places.keys():
            return  # frozen from the beginning, at least in part
        self._strengths[places[down].start : places[down].stop] = adapter.scale
        of_up, of_down = places[up], places[down]
        adapter.fold_with(
            Fold(
                lambda: self.are_fresh,
                _matrix(self._weights, of_up),
                _matrix(self._weights, of_down),
                _matrix(self._gradients, of_up),
                _matrix(self._gradients, of_down),
                ((up, of_up.gradient), (down, of_down.gradient)),
                adapter.scale,
            )
        )


def copies_for(
    network: Network, optimizer: Optimizer, family: Family, dtype: torch.dtype
) -> Copies | None:
    """The copies of a network, or None where it computes with its weights, under autocast.

    That is: of every type but plain LoRA, with dropouts, and beside a base of another precision.
    """
    flat, unet = flat_of(optimizer), family.unet
    parts: list[Any] = [unet.conv_in, *family.text_encoders]
    alike = all(_precision(part) == dtype for part in parts)
    plain = all(type(adapter) is Lora for _, adapter in network.named())
    if flat is None or not alike or not plain or network.draws:
        return None
    return Copies(network, flat, dtype)


def _precision(part: nn.Module) -> torch.dtype:
    return next(part.parameters()).dtype


def _matrix(buffer: Tensor, place: Place) -> Tensor:
    """A weight's part of a buffer; a 1x1 kernel as the matrix that it is."""
    return buffer[place.start : place.stop].view(len(place.weight), -1)
