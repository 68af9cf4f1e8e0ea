"""Lists of numbers for U-Net blocks, read and checked against a family's layout.

Blocks are numbered as the reference does: SD 1.x and 2.x from 0 to 24 (12 down, middle, 12 up),
SDXL from 0 to 22 (before, 9 input, 3 middle, 9 output, after).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kit.catalog import BlockLayout
from kit.settings.blocks import Blocks
from kit.settings.network import NetworkSettings

COURSES: dict[str, Callable[[float], float]] = {
    "sine": lambda t: math.sin(math.pi * t / 2),
    "cosine": lambda t: math.cos(math.pi * t / 2),
    "linear": lambda t: t,
    "reverse_linear": lambda t: 1 - t,
    "zeros": lambda _: 0.0,
}


@dataclass(frozen=True)
class BlockPlan:
    """What each block gets, by its number; None where the network's own value counts."""

    weights: tuple[float, ...] | None = None
    dims: tuple[float, ...] | None = None
    alphas: tuple[float, ...] | None = None
    conv_dims: tuple[float, ...] | None = None
    conv_alphas: tuple[float, ...] | None = None

    def weight(self, block: int | None) -> float:
        """The factor of a block's rate; layers outside of any block learn at the full rate."""
        return 1.0 if self.weights is None or block is None else self.weights[block]

    def size(
        self, block: int | None, *, is_conv3x3: bool, network: NetworkSettings
    ) -> tuple[int, float] | None:
        """Rank and alpha of a layer, or None where it gets no adapter."""
        if self.weight(block) == 0:
            return None
        dims, alphas = (
            (self.conv_dims, self.conv_alphas) if is_conv3x3 else (self.dims, self.alphas)
        )
        rank, alpha = own_size(network, is_conv3x3=is_conv3x3)
        if block is not None:
            rank = rank if dims is None else int(dims[block])
            alpha = alpha if alphas is None else alphas[block]
        return (rank, alpha) if rank else None


def own_size(network: NetworkSettings, *, is_conv3x3: bool) -> tuple[int, float]:
    """Rank and alpha that the network's settings give a layer."""
    if is_conv3x3:
        return network.conv_dim or network.network_dim, network.conv_alpha
    return network.network_dim, network.network_alpha


def given_weights(blocks: Blocks) -> dict[str, str]:
    """The factors as they were typed, blank ones too."""
    return {
        "down_lr_weight": blocks.down_lr_weight.strip(),
        "mid_lr_weight": blocks.mid_lr_weight.strip(),
        "up_lr_weight": blocks.up_lr_weight.strip(),
    }


def given_lists(blocks: Blocks) -> dict[str, str]:
    """The ranks and alphas as they were typed, blank ones too."""
    return {
        "block_dims": blocks.block_dims.strip(),
        "block_alphas": blocks.block_alphas.strip(),
        "conv_block_dims": blocks.conv_block_dims.strip(),
        "conv_block_alphas": blocks.conv_block_alphas.strip(),
    }


def uses_blocks(blocks: Blocks) -> bool:
    """Some block is to be treated otherwise than the rest."""
    return any(given_weights(blocks).values()) or any(given_lists(blocks).values())


def block_plan(blocks: Blocks, layout: BlockLayout) -> BlockPlan:
    """The lists of a family with this layout; blank ones are None.

    Raises: ValueError with every list that does not fit, a line each.
    """
    if not uses_blocks(blocks):
        return BlockPlan()
    wrong = list(misfits(blocks, layout))
    if wrong:
        raise ValueError("\n".join(wrong))
    weights = None
    typed = given_weights(blocks).values()
    if any(typed):
        down, mid, up = (
            _weights(text, count) for text, count in zip(typed, layout.sections, strict=True)
        )
        row = (*(1.0,) * layout.before, *down, *mid, *up, *(1.0,) * layout.after)
        limit = blocks.block_lr_zero_threshold
        weights = tuple(0.0 if value <= limit else value for value in row)
    return BlockPlan(weights, *map(_list, given_lists(blocks).values()))


def misfits(blocks: Blocks, layout: BlockLayout) -> Iterator[str]:
    """Every list that cannot be read or has another length, as `[blocks] name: ...`."""
    for (name, text), count in zip(given_weights(blocks).items(), layout.sections, strict=True):
        try:
            _weights(text, count)
        except ValueError as error:
            yield f"[blocks] {name}: {error}"
    for name, text in given_lists(blocks).items():
        try:
            values = _list(text)
        except ValueError as error:
            yield f"[blocks] {name}: {error}"
            continue
        if values is not None and len(values) != layout.count:
            yield f"[blocks] {name}: {len(values)} numbers; this model has {layout.count} blocks"
        if values is not None and name.endswith("dims") and any(v % 1 or v < 0 for v in values):
            yield f"[blocks] {name}: ranks are whole numbers from 0"
        if values is not None and name.endswith("alphas") and any(v < 0 for v in values):
            yield f"[blocks] {name}: alphas are numbers from 0"


def _weights(text: str, count: int) -> tuple[float, ...]:
    """`count` factors from a list, one number for all, or a named course with an offset."""
    if not text:
        return (1.0,) * count
    name, plus, offset = text.partition("+")
    if name.strip() in COURSES:
        base = _number(offset) if plus else 0.0
        course = COURSES[name.strip()]
        return tuple(course(i / max(1, count - 1)) + base for i in range(count))
    values = _list(text) or ()
    if len(values) not in (1, count):
        raise ValueError(f"{len(values)} numbers; this model has {count} such blocks")
    if any(value < 0 for value in values):
        raise ValueError("factors are numbers from 0")
    return values * count if len(values) == 1 else values


def _list(text: str) -> tuple[float, ...] | None:
    if not text:
        return None
    return tuple(_number(part) if part.strip() else 0.0 for part in text.split(","))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        names = ", ".join(COURSES)
        raise ValueError(
            f"{text.strip()!r} is no number; write numbers with commas between them, or one of "
            f"{names} for a rate"
        ) from None
    if not math.isfinite(value):
        raise ValueError(f"{text.strip()!r} is no number that can be used")
    return value
