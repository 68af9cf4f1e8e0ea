"""Parts of a base model that rest in their file, and take memory on a CPU while they are needed.

A part at rest looks into the mapped file: its weights have the file's precision and begin anywhere,
so it is woken before it computes. A run's VAE and text encoders make the caches first, and let go
of their memory; the U-Net, most of it all, comes after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kit.families.streaming import Weights, alignment_of, place, placed_tensor

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Rest:
    """How a part will be placed: in which precision (None: its own), from which file."""

    dtype: torch.dtype | None
    weights: Weights


def settle(
    module: nn.Module, weights: Weights, device: torch.device, dtype: torch.dtype, *, rests: bool
) -> None:
    """Place a part on its device, or leave it at rest, if that is wanted and can be.

    It can where it will compute on a CPU, from a mapped file; rounded to fp16 it might overflow,
    which is to be seen at once.
    """
    if rests and device.type == "cpu" and weights.mappings and dtype is not torch.float16:
        _rest(module, Rest(dtype, weights))
    else:
        place(module, device, dtype, weights)


def _rest(module: nn.Module, at_rest: Rest) -> None:
    vars(module)["at_rest"] = at_rest
    for owner in module.modules():
        for weight in owner.parameters(recurse=False):
            weight.placed_as = at_rest.dtype  # type: ignore[attr-defined]
            weight.placed_at = alignment_of(owner, weight)  # type: ignore[attr-defined]
    at_rest.weights.release()


def wake(*modules: nn.Module) -> None:
    """Place what rests, for good."""
    for module in modules:
        at_rest = vars(module).pop("at_rest", None)
        if at_rest is not None:
            place(module, CPU, at_rest.dtype, at_rest.weights)


def taken_up(module: nn.Module, device: torch.device) -> Callable[..., None]:
    """What places pieces of a part, at rest or not, for good, one after the other.

    The returned call takes a piece, and skip: weights that stay as they are.
    """
    at_rest = vars(module).pop("at_rest", None) or Rest(None, Weights({}))

    def take_up(piece: nn.Module, *, skip: Callable[[Tensor], bool]) -> None:
        for owner in piece.modules():
            for name, weight in list(owner.named_parameters(recurse=False)):
                if not skip(weight):
                    placed = placed_tensor(weight.detach(), device, at_rest.dtype)
                    setattr(owner, name, nn.Parameter(placed, requires_grad=False))
        at_rest.weights.release()

    return take_up


@contextmanager
def awake(*modules: nn.Module) -> Iterator[None]:
    """What rests is placed inside the block."""
    beds = [(module, vars(module).get("at_rest")) for module in modules]
    wake(*modules)
    try:
        yield
    finally:
        for module, at_rest in beds:
            if at_rest is not None:
                for weight in module.parameters():
                    weight.data = weight.in_file  # type: ignore[attr-defined]
                _rest(module, at_rest)


def precision_of(module: nn.Module) -> torch.dtype:
    """What a part's first weights compute in, once it is awake."""
    weight = next(module.parameters())
    dtype: torch.dtype = getattr(weight, "placed_as", weight.dtype)
    return dtype


def as_placed(weight: Tensor) -> Tensor:
    """A weight as it is, or will be, once it is awake."""
    dtype: torch.dtype | None = getattr(weight, "placed_as", None)
    if dtype is None:
        return weight.detach()
    begins: int = weight.placed_at  # type: ignore[attr-defined]
    return placed_tensor(weight.detach(), CPU, dtype, begins)


def park(module: nn.Module) -> None:
    """Give back the memory of a part that is hardly needed any more: it looks into its file again.

    It computes from there if it is asked. What was rounded, or read rather than mapped, stays.
    """
    for weight in module.parameters():
        in_file = getattr(weight, "in_file", None)
        if in_file is not None and (weight.dtype, weight.device) == (in_file.dtype, in_file.device):
            weight.data = in_file
    from_file = vars(module).get("from_file")
    if from_file is not None:
        from_file.release()
