"""What is stored otherwise than it is trained, so that more programs read it, and the way back.

OFT's blocks are stored limited and without their constraint, LoKr's Tucker parts as the one factor
that they make. What that hides stands in the file's metadata, under NOTE: by name the number that
most modules have, under a blank, and those of the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kit.adapters.lokr import CORE, TUCKER, WHOLE
from kit.adapters.oft import BLOCKS, CONSTRAINT
from kit.errors import Unreadable
from kit.reading.fields import Table
from kit.reading.texts import from_json

NOTE = "lorakit_network"


def unsaid(told: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The metadata of a file; told: by module and name. Nothing where all numbers are 0."""
    found: dict[str, dict[str, float]] = {}
    for name in sorted({name for numbers in told.values() for name in numbers}):
        by_module = {module: numbers[name] for module, numbers in told.items() if name in numbers}
        usual = Counter(by_module.values()).most_common(1)[0][0]
        others = {module: number for module, number in by_module.items() if number != usual}
        if usual or others:
            found[name] = {"": usual, **others}
    return {NOTE: json.dumps(found, separators=(",", ":"))} if found else {}


def as_trained(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, tucker: bool
) -> dict[str, Tensor]:
    """A file's tensors as they were trained, where its metadata say how; else as they are.

    tucker: LoKr's parts are wanted, and not the factor that they make.
    """
    note = _read(metadata.get(NOTE, ""))
    found = dict(tensors)
    for key in tensors:
        module, _, role = key.partition(".")
        if role == BLOCKS and (limit := _number(note, CONSTRAINT, module)):
            found[f"{module}.alpha"] = torch.tensor(limit)
        elif role == WHOLE and tucker and (rank := int(_number(note, CORE, module))) > 0:
            _split(found, module, rank)
    return found


def _read(text: str) -> dict[str, Any]:
    try:
        return Table(from_json(text or "{}", NOTE), NOTE).values
    except Unreadable:
        return {}


def _number(note: Mapping[str, Any], name: str, module: str) -> float:
    numbers = note.get(name)
    if not isinstance(numbers, dict):
        return 0.0
    told = Table(numbers, NOTE)
    try:
        return told.number(module, told.number("", 0.0))
    except Unreadable:
        return 0.0


def _split(found: dict[str, Tensor], module: str, rank: int) -> None:
    """Tucker's parts instead of the whole factor, as strong as it is."""
    whole = found[f"{module}.{WHOLE}"]
    if whole.dim() != 4 or not whole.numel() or whole.shape[2:] == (1, 1):
        return
    alpha = found.get(f"{module}.alpha")
    is_strong = f"{module}.lokr_w1" not in found or alpha is None or alpha.numel() != 1
    strength = 1.0 if is_strong or not alpha else float(alpha.float()) / rank
    del found[f"{module}.{WHOLE}"]
    parts = parts_of(whole.double() / strength, rank)
    found |= {f"{module}.{role}": t.float() for role, t in zip(TUCKER, parts, strict=True)}


def parts_of(whole_QTKK: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """A core R R K K and two matrices R Q and R T that make up a factor of that rank, float64.

    Exact where the factor is of the rank; of a rounded one the nearest, but for a hair. Rows are of
    length 1, about as long as a new training's. Source: De Lathauwer et al. 2000,
    https://doi.org/10.1137/S0895479896305696 (HOSVD).
    """
    outputs_RQ = _directions(whole_QTKK.flatten(1), rank)
    inputs_RT = _directions(whole_QTKK.transpose(0, 1).flatten(1), rank)
    core = torch.einsum("oi..., po, qi -> pq...", whole_QTKK, outputs_RQ, inputs_RT)
    # Where the rank is larger than a side, directions come again; only the first takes part.
    core[whole_QTKK.shape[0] :] = 0
    core[:, whole_QTKK.shape[1] :] = 0
    return core, outputs_RQ, inputs_RT


def _directions(matrix: Tensor, rank: int) -> Tensor:
    """The directions in which the columns lie, the longest first, as rows."""
    longest_first = torch.linalg.eigh(matrix @ matrix.T)[1].flip(1).T
    again = [number % len(longest_first) for number in range(rank)]
    return longest_first[again]
