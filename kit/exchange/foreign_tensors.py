"""The tensors of other programs' LoRAs as kohya's: renamed, and reshaped where they differ.

torch is not imported: what is done, tensors can do themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kit.errors import LoraFileError
from kit.exchange.foreign_lora import MAGNITUDE, ROTATION, recognised

if TYPE_CHECKING:
    from torch import Tensor

SIDES = 3  # of the rotations' tensor: blocks, and two of a square
SKEWED = 0.02  # how far a rotation in 16 bits may be from one


def converted(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> dict[str, Tensor]:
    """A file's tensors by kohya's names; its own layout comes back as it is.

    Raises: LoraFileError where it cannot be converted exactly.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    found = recognised(path, shapes, metadata)
    made = {found.names[name]: t for name, t in tensors.items() if name in found.names}
    for module, alpha in found.alphas.items():
        like = made[f"{module}.lora_down.weight"].float()
        made[f"{module}.alpha"] = like.new_tensor(alpha)
    for name in [name for name in made if name.endswith((MAGNITUDE, ROTATION))]:
        module, _, role = name.partition(".")
        tensor = made.pop(name)
        if role == MAGNITUDE:
            made[f"{module}.dora_scale"] = _per_output(
                tensor, made.get(f"{module}.lora_down.weight")
            )
        else:
            made[f"{module}.oft_blocks"] = _blocks(path, tensor)
            made.pop(f"{module}.alpha", None)  # its limit was applied already
    return made


def _per_output(magnitude: Tensor, down: Tensor | None) -> Tensor:
    """PEFT has one magnitude for each output, in a row: O, or 1 O 1 1. Returns O 1, or O 1 1 1."""
    if down is None:  # half a module, which is told when it is attached
        return magnitude
    return magnitude.reshape(-1, *[1] * (down.dim() - 1))


def _blocks(path: Path, rotations_NDD: Tensor) -> Tensor:
    """Blocks whose Cayley transform these rotations are: half of (R - 1) / (R + 1).

    Source: the inverse of (1 + q) / (1 - q), with q = block - its transpose (LyCORIS 2.0, which
    wrote R, not the blocks).

    Raises: LoraFileError where they are no rotations, as with its option `rescaled`.
    """
    turn = rotations_NDD.double()
    if turn.dim() != SIDES or turn.shape[-1] != turn.shape[-2]:
        raise _no_rotations(path)
    one = turn.new_zeros(turn.shape)
    one.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    if not float((turn @ turn.transpose(-1, -2) - one).abs().max()) <= SKEWED:
        raise _no_rotations(path)
    skew = (turn - one) @ (turn + one).inverse()
    return ((skew - skew.transpose(-1, -2)) / 4).float()


def _no_rotations(path: Path) -> LoraFileError:
    return LoraFileError(
        f"{path.name} is LyCORIS' old OFT (oft_diag) whose matrices are no rotations, as with its "
        "option rescaled, and cannot be converted.",
        "Plain rotations can be.",
        "Choose another file.",
    )
