"""What is not finite or explodes, as errors; and the look at weights before anything is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Kind: TypeAlias = Literal["loss", "gradient", "weights", "explosion"]
Place: TypeAlias = tuple[int, int]  # micro-step, and the image's row in its batch
NAMED = 3  # layers that a message names


class Setback(ArithmeticError):
    """The weights are not to go on as they are: the run goes back, or ends."""


class Unsound(Setback):
    """A loss, a gradient or a weight that is not finite, or one that explodes.

    words: what was seen; places: the images that it was seen at; weights: what has a gradient
    that is not finite.
    """

    step: int
    pictures: tuple[str, ...]
    is_of_data: bool

    def __init__(
        self,
        kind: Kind,
        words: str,
        *,
        places: Sequence[Place] = (),
        weights: Sequence[Tensor] = (),
    ) -> None:
        super().__init__(words)
        self.kind: Kind = kind
        self.words, self.places, self.weights = words, tuple(places), tuple(weights)
        # What is found out later: the step, its images' files, and whether these are the cause.
        self.step, self.pictures, self.is_of_data = 0, (), False


class NotFinite(Unsound):
    """It is no number, or infinite."""


class Explodes(Unsound):
    """It is finite, and far from all that was before it."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """No tensor holds a NaN or an infinity: one fused norm and one number read for all of a kind.

    The greatest of all absolute values does not overflow, as a sum would in half precision.
    """
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            groups.setdefault((tensor.device, tensor.dtype), []).append(tensor.detach())
    for alike in groups.values():
        greatest = torch.stack(torch._foreach_norm(alike, math.inf)).float().max()
        if not math.isfinite(float(greatest)):
            return False
    return True


def names_not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Whose values are not finite, in their order; each is read, so only where some are known."""
    return [name for name, tensor in tensors.items() if not all_finite([tensor])]


def listed(names: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def require_finite_network(network: nn.Module) -> None:
    """Nothing is drawn or saved of weights that are not finite.

    Raises: NotFinite, which names the first of them.
    """
    require_finite(dict(network.named_parameters()), "weights of the LoRA that are not finite")


def require_finite(tensors: Mapping[str, Tensor], words: str) -> None:
    """Raises: NotFinite where some are not, with the words and their names."""
    if not all_finite(tensors.values()):
        found = [short_name(name) for name in names_not_finite(tensors)]
        raise NotFinite("weights", f"{words}: {listed(found)}")


def require_finite_optimizer(optimizer: Optimizer) -> None:
    """An optimizer's averages are finite.

    Raises: NotFinite.
    """
    kept = [value for state in optimizer.state.values() for value in _tensors(state)]
    kept += [value for group in optimizer.param_groups for value in _tensors(group.get("d"))]
    if not all_finite(kept):
        raise NotFinite("weights", "the optimizer's averages are not finite")


def _tensors(value: Any) -> Iterable[Tensor]:
    """All tensors of an optimizer's state, however deep; of quantized ones the scales."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, float):
        yield torch.tensor(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)


def short_name(name: str) -> str:
    """`lora_unet_x.lora_down` of a parameter of the network."""
    return name.removeprefix("adapters.").removesuffix(".weight")
