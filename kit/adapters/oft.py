"""OFT and BOFT: the layer's outputs are turned, in blocks, without becoming longer or shorter.

Shapes: O outputs, N blocks, D side of a block, S stages; ... whatever lies before the outputs.
Source: OFT, Qiu et al. 2023, https://arxiv.org/abs/2306.07280; BOFT, Liu et al. 2023,
https://arxiv.org/abs/2311.06243; file format and meaning of the constraint are LyCORIS'.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kit.adapters.base import Adapter, number_in
from kit.adapters.init import Start, ones, zeros
from kit.adapters.ops import AdaptedLayer, weight_shape, without_bias
from kit.catalog import lora_shapes
from kit.catalog.lora_shapes import Shape, Shapes

BLOCKS, RESCALE = "oft_blocks", "rescale"
CONSTRAINT = "constraint"


def rotations(blocks: Tensor, longest: float = 0.0) -> Tensor:
    """Orthogonal matrices by Cayley's formula, (1 + q) / (1 - q) with q = block - its transpose.

    blocks: ... D D; longest: limit of the norm of all q together, 0 for none.
    """
    whole = blocks.float()  # no device solves in 16 bits
    skew = _limited(whole - whole.transpose(-1, -2), longest)
    one = torch.eye(whole.shape[-1], device=whole.device, dtype=whole.dtype)
    # The two commute, and one minus a skew matrix has an inverse: nothing is to be checked, which
    # on a GPU would wait for it and could not be recorded.
    return torch.linalg.solve_ex(one - skew, one + skew)[0].to(blocks.dtype)


def _limited(skew: Tensor, longest: float) -> Tensor:
    length = skew.norm() + 1e-8
    return skew * (longest / length).clamp(max=1.0) if longest > 0 else skew


def turned(values: Tensor, rotations_NDD: Tensor) -> Tensor:
    """Every block of outputs times its rotation, less what it was; values: ... O."""
    count, side, _ = rotations_NDD.shape
    one = torch.eye(side, device=values.device, dtype=values.dtype)
    blocks = values.unflatten(-1, (count, side))
    return torch.einsum("nij, ...ni -> ...nj", rotations_NDD - one, blocks).flatten(-2)


def butterfly(values: Tensor, rotations_SNDD: Tensor) -> Tensor:
    """The same in stages: in stage s, outputs that lie D / 2 * 2**s apart come into one block.

    Returns what all stages together change; values: ... O.
    """
    half = rotations_SNDD.shape[-1] // 2
    now = values
    for stage, rotations_NDD in enumerate(rotations_SNDD):
        step = half * 2**stage
        paired = now.unflatten(-1, (-1, 2, step)).transpose(-1, -2).flatten(-3)
        # Here the rotation acts from the left, in OFT's files from the right.
        paired = paired + turned(paired, rotations_NDD.transpose(-1, -2))
        now = paired.unflatten(-1, (-1, step, 2)).transpose(-1, -2).flatten(-3)
    return now - values


class Rotation(Adapter):
    """What OFT and BOFT share: the constraint, the rescaling, and that the output itself is turned.

    LyCORIS keeps the constraint as `alpha` in the file; ours holds blocks that are limited already.
    """

    STARTS: ClassVar[Mapping[str, Start]] = {BLOCKS: zeros, RESCALE: ones}
    NEEDS = frozenset({BLOCKS})
    MAY = frozenset({RESCALE})
    SIDES: ClassVar[int]  # of the blocks' tensor: what tells the two apart

    def __init__(
        self,
        layer: AdaptedLayer,
        shapes: Shapes,
        *,
        constraint: float = 0.0,
        **dropouts: Any,
    ) -> None:
        """constraint: limit of the rotation's norm for each output of the layer; 0 for none."""
        super().__init__(layer, shapes, **dropouts)
        self.longest = constraint * weight_shape(layer)[0]
        self.register_buffer("alpha", torch.tensor(float(constraint)))

    @classmethod
    def reads(cls, shapes: Shapes) -> bool:
        """The number of the blocks' sides tells OFT from BOFT."""
        return super().reads(shapes) and len(shapes[BLOCKS]) == cls.SIDES

    @staticmethod
    def options_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """What files call alpha is the constraint; 0 leaves it to the settings."""
        limit = number_in(tensors, "alpha")
        return {CONSTRAINT: limit} if limit else {}

    @staticmethod
    def rank_of(shapes: Shapes) -> int:
        """The side of a block."""
        return lora_shapes.side(shapes, BLOCKS, -1)

    @classmethod
    def kept_of(cls, layer: Any, found: Shapes) -> Shapes:
        """Blocks of the file's side that together are as wide as the layer's outputs."""
        weight, side = weight_shape(layer), cls.rank_of(found)
        own = cls.blocks_like(weight[0], side, found[BLOCKS])
        rescaled = lora_shapes.rescale(weight, RESCALE in found)
        return lora_shapes.matched(found, {BLOCKS: own, **rescaled})

    @classmethod
    def blocks_like(cls, outputs: int, side: int, found: Shape) -> Shape:
        """The shape of all blocks of this side."""
        return (outputs // side, side, side)

    @abstractmethod
    def turn(self, values: Tensor) -> Tensor:
        """How the rotation changes values ... O."""

    def _changed(self, values: Tensor) -> Tensor:
        change = self.turn(values)
        if not self.has(RESCALE):
            return change
        rescale_O = self.part(RESCALE).reshape(-1)
        return rescale_O * change + (rescale_O - 1) * values

    def delta(self) -> Tensor:
        """The change of the weight: its outputs turned."""
        return self._changed(self.base_weight().movedim(0, -1)).movedim(-1, 0)

    def plain_change(self, inputs: Tensor, output: Tensor) -> Tensor:
        """The layer's own output, turned; the base weight is not needed."""
        with torch.autocast(inputs.device.type, enabled=False):
            made = without_bias(self.layer, output)
            if isinstance(self.layer, nn.Conv2d):
                return self._changed(made.movedim(1, -1)).movedim(-1, 1)
            return self._changed(made)

    @torch.no_grad()
    def tensors(self) -> dict[str, Tensor]:
        """The blocks as far as they may turn, and no constraint, so that every reader agrees.

        ComfyUI takes alpha alone for the limit, and not for each output: 98 % of the turn is lost.
        """
        found = super().tensors()
        if self.longest > 0:
            blocks = found[BLOCKS].float()
            found[BLOCKS] = _limited(blocks - blocks.transpose(-1, -2), self.longest) / 2
            found["alpha"] = torch.zeros_like(self.alpha)
        return found

    def unsaid(self) -> dict[str, float]:
        """The constraint."""
        limit = float(self.alpha)
        return {CONSTRAINT: limit} if limit else {}

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """The file's own constraint is applied to its blocks; ours acts from here on."""
        super().take(tensors)
        limit = number_in(tensors, "alpha")
        blocks = self.part(BLOCKS)
        skew = blocks - blocks.transpose(-1, -2)
        blocks.copy_(_limited(skew, limit * weight_shape(self.layer)[0]) / 2)


class DiagOft(Rotation):
    """OFT with blocks along the diagonal."""

    SIDES = 3

    def __init__(
        self,
        layer: AdaptedLayer,
        *,
        rank: int,
        alpha: float = 0.0,
        rescaled: bool = False,
        found: Shapes | None = None,
        **options: Any,
    ) -> None:
        """rank: the side of a block, at most; alpha is not used."""
        shapes = found or lora_shapes.oft(weight_shape(layer), rank, rescaled=rescaled)
        super().__init__(layer, shapes, **options)

    def turn(self, values: Tensor) -> Tensor:
        """Each block for itself."""
        return turned(values, rotations(self.part(BLOCKS), self.longest))


class Boft(Rotation):
    """OFT whose blocks mix ever farther outputs from stage to stage."""

    SIDES = 4

    @classmethod
    def blocks_like(cls, outputs: int, side: int, found: Shape) -> Shape:
        """The same for as many stages as the file has.

        Raises: ValueError where the outputs cannot be divided so.
        """
        stages, count = found[0], outputs // side
        if side % 2 or not stages or count % 2 ** (stages - 1):
            raise ValueError(f"{outputs} outputs in {stages} stages of blocks of {side}")
        return (stages, *super().blocks_like(outputs, side, found))

    def __init__(
        self,
        layer: AdaptedLayer,
        *,
        rank: int,
        alpha: float = 0.0,
        rescaled: bool = False,
        found: Shapes | None = None,
        **options: Any,
    ) -> None:
        """rank: the side of a block, at most; alpha is not used.

        Raises: ValueError where the layer's outputs cannot be divided so.
        """
        shapes = found or lora_shapes.boft(weight_shape(layer), rank, rescaled=rescaled)
        super().__init__(layer, shapes, **options)

    def turn(self, values: Tensor) -> Tensor:
        """Stage after stage."""
        return butterfly(values, rotations(self.part(BLOCKS), self.longest))
