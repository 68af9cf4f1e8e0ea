"""A network in the precision that it computes in: one copy of all weights, made once per batch.

Weights, gradients and averages stay float32; layers see copies of the weights, and write gradients
beside them. A handful of kernels brings copies up to date, and one their gradients back, however
many weights there are: those of one strength lie side by side. So no layer casts anything, and
autocast is not needed.

It is for LoRA whose weights lie in one buffer and whose forward pass draws nothing; other types
compute under autocast, with their own gradients, as ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kit.adapters.folded import Fold, can_fold, is_plain
from kit.adapters.joined import Joined
from kit.adapters.lora import DOWN, UP, Lora
from kit.adapters.network import Network
from kit.families import Family
from kit.families.resting import precision_of
from kit.families.target_layers import reading_alike
from kit.optim.flat import Flat, Place, flat_of

Alike = tuple[nn.Module, ...]  # layers that read the same inputs


class Copies:
    """The copies of a network's weights, with their gradients.

    They hold from `refresh` to `gather`; outside, adapters compute with the weights themselves.
    """

    def __init__(
        self, network: Network, flat: Flat, dtype: torch.dtype, alike: Iterable[Alike] = ()
    ) -> None:
        """dtype: what the frozen base computes in; alike: layers that read the same inputs."""
        buffers = self._buffers = flat.buffers
        self._weights = torch.zeros_like(buffers.weights, dtype=dtype)
        self._gradients = torch.zeros_like(self._weights)
        self.are_fresh = False
        self._places = {place.weight: place for place in buffers.places}
        self._folded: dict[nn.Module, tuple[Lora, Fold]] = {}
        for _, adapter in network.named():
            if isinstance(adapter, Lora):
                adapter.computes_as_base = True
                if can_fold(adapter.layer):
                    self._fold(adapter)
        for layers in alike:
            self._join(layers)
        self._stretches = list(self._of_one_strength())

    def refresh(self) -> None:
        """Copy the weights as they are now; they have no gradients yet."""
        assert self._buffers.hold_weights, "another optimizer has moved the weights elsewhere"
        for weights, strength, copies in self._stretches:
            if strength == 1:
                copies.copy_(weights)
            else:
                torch.mul(weights, strength, out=copies)
        self._gradients.zero_()
        self.are_fresh = True

    def gather(self) -> None:
        """Add the gradients of the copies to those of the weights."""
        self._buffers.gradients.add_(self._gradients)
        self.are_fresh = False

    def _fold(self, adapter: Lora) -> None:
        up, down = adapter.part(UP), adapter.part(DOWN)
        if not {up, down} <= self._places.keys():
            return  # frozen from the beginning, at least in part
        of_up, of_down = self._places[up], self._places[down]
        fold = Fold(
            lambda: self.are_fresh,
            _matrix(self._weights, of_up),
            _matrix(self._weights, of_down),
            _matrix(self._gradients, of_up),
            _matrix(self._gradients, of_down),
            ((up, of_up.gradient), (down, of_down.gradient)),
            adapter.scale,
        )
        adapter.fold_with(fold)
        self._folded[adapter.layer] = adapter, fold

    def _join(self, layers: Alike) -> None:
        """Let layers that read the same inputs share a product, where their downs lie in one."""
        if not all(layer in self._folded and is_plain(layer) for layer in layers):
            return
        members = [self._folded[layer] for layer in layers]
        members.sort(key=lambda member: self._down(member).start)
        downs = [self._down(member) for member in members]
        inputs = {place.weight.shape[1] for place in downs}
        touch = all(one.stop == other.start for one, other in pairwise(downs))
        if len(inputs) > 1 or len({fold.strength for _, fold in members}) > 1 or not touch:
            return
        whole, [width] = slice(downs[0].start, downs[-1].stop), inputs
        joined = Joined(
            [(cast(nn.Linear, adapter.layer), fold) for adapter, fold in members],
            self._weights[whole].view(-1, width),
            self._gradients[whole].view(-1, width),
        )
        for number, (adapter, _) in enumerate(members):
            adapter.join(joined, number)

    def _down(self, member: tuple[Lora, Fold]) -> Place:
        return self._places[member[0].part(DOWN)]

    def _of_one_strength(self) -> Iterator[tuple[Tensor, float, Tensor]]:
        """Parts of the buffer, what they are multiplied with, and the same parts of the copies."""
        strengths = {adapter.part(DOWN): adapter.scale for adapter, _ in self._folded.values()}
        begun = [(place.start, strengths.get(place.weight, 1.0)) for place in self._places.values()]
        begun = [next(same) for _, same in groupby(begun, key=lambda each: each[1])]
        ends = [start for start, _ in begun[1:]] + [len(self._weights)]
        for (start, strength), end in zip(begun, ends, strict=True):
            inside = slice(start, end)
            yield self._buffers.weights[inside], strength, self._weights[inside]


def copies_for(
    network: Network, optimizer: Optimizer, family: Family, dtype: torch.dtype
) -> Copies | None:
    """The copies of a network, or None where it computes with its weights, under autocast.

    That is: of every type but plain LoRA, with dropouts, and beside a base of another precision.
    """
    flat, unet = flat_of(optimizer), family.unet
    parts: list[Any] = [unet.conv_in, *family.text_encoders]
    alike = all(precision_of(part) == dtype for part in parts)
    plain = all(type(adapter) is Lora for _, adapter in network.named())
    if flat is None or not alike or not plain or network.draws:
        return None
    shared = [layers for part in (unet, *family.text_encoders) for layers in reading_alike(part)]
    return Copies(network, flat, dtype, shared)


def _matrix(buffer: Tensor, place: Place) -> Tensor:
    """A weight's part of a buffer; a 1x1 kernel as the matrix that it is."""
    return buffer[place.start : place.stop].view(len(place.weight), -1)
