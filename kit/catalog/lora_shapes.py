"""Tensors of each LoRA type beside a layer, by role and shape: arithmetic, without torch.

The adapters make their weights by it, and the plan tells the LoRA's size by it. `weight` is the
shape of the layer's weight: O I, or O I K K for a convolution (O outputs, I inputs, K kernel side).
Roles and shapes are those of the files that LyCORIS writes, which ComfyUI and the WebUI read.
Source: https://github.com/KohakuBlueleaf/LyCORIS (file format).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


def lora(
    weight: Shape,
    rank: int,
    *,
    use_tucker: bool = False,
    dora_wd: bool = False,
    wd_on_output: bool = False,
) -> Shapes:
    """Down to the rank and up again; Tucker gives the kernel a core of its own, rank to rank."""
    outputs, inputs, *kernel = weight
    ones = [1] * len(kernel)
    shapes: Shapes = {"lora_up.weight": (outputs, rank, *ones)}
    if use_tucker and _is_wide(weight):
        shapes["lora_mid.weight"] = (rank, rank, *kernel)
        shapes["lora_down.weight"] = (rank, inputs, *ones)
    else:
        shapes["lora_down.weight"] = (rank, inputs, *kernel)
    return shapes | _magnitude(weight, dora_wd, wd_on_output)


def loha(
    weight: Shape,
    rank: int,
    *,
    use_tucker: bool = False,
    dora_wd: bool = False,
    wd_on_output: bool = False,
) -> Shapes:
    """Two low-rank products, multiplied value by value."""
    outputs, inputs, *kernel = weight
    shapes: Shapes = {}
    for half in ("1", "2"):
        if use_tucker and _is_wide(weight):
            shapes[f"hada_t{half}"] = (rank, rank, *kernel)
            shapes[f"hada_w{half}_a"] = (rank, outputs)
            shapes[f"hada_w{half}_b"] = (rank, inputs)
        else:
            shapes[f"hada_w{half}_a"] = (outputs, rank)
            shapes[f"hada_w{half}_b"] = (rank, inputs * math.prod(kernel))
    return shapes | _magnitude(weight, dora_wd, wd_on_output)


def lokr(
    weight: Shape,
    rank: int,
    *,
    factor: int = -1,
    decompose_both: bool = False,
    use_tucker: bool = False,
    dora_wd: bool = False,
    wd_on_output: bool = False,
) -> Shapes:
    """A small and a large Kronecker factor, which is whole at a rank of half its side or more."""
    outputs, inputs, *kernel = weight
    (small_out, large_out), (small_in, large_in) = split(outputs, factor), split(inputs, factor)
    shapes: Shapes = {}
    if decompose_both and rank < max(small_out, small_in) / 2:
        shapes |= {"lokr_w1_a": (small_out, rank), "lokr_w1_b": (rank, small_in)}
    else:
        shapes["lokr_w1"] = (small_out, small_in)
    if rank >= max(large_out, large_in) / 2:
        shapes["lokr_w2"] = (large_out, large_in, *kernel)
    elif use_tucker and _is_wide(weight):
        shapes["lokr_t2"] = (rank, rank, *kernel)
        shapes |= {"lokr_w2_a": (rank, large_out), "lokr_w2_b": (rank, large_in)}
    else:
        shapes["lokr_w2_a"] = (large_out, rank)
        shapes["lokr_w2_b"] = (rank, large_in * math.prod(kernel))
    return shapes | _magnitude(weight, dora_wd, wd_on_output)


def glora(weight: Shape, rank: int) -> Shapes:
    """A pair for what the layer's own weight is multiplied with, and a pair that is added."""
    outputs, inputs, *kernel = weight
    ones = [1] * len(kernel)
    return {
        "a1.weight": (inputs, rank, *ones),
        "a2.weight": (rank, inputs, *ones),
        "b1.weight": (outputs, rank, *ones),
        "b2.weight": (rank, inputs, *kernel),
    }


def ia3(weight: Shape, _rank: int = 0, *, train_on_input: bool = False) -> Shapes:
    """One value for each input, or for each output."""
    outputs, inputs, *kernel = weight
    values = inputs if train_on_input else outputs
    return {"weight": (1, values, *[1] * len(kernel)) if kernel else (values,), "on_input": ()}


def full(weight: Shape, _rank: int = 0, *, has_bias: bool = True) -> Shapes:
    """The whole difference of the weight and of the bias."""
    return {"diff": weight, **({"diff_b": weight[:1]} if has_bias else {})}


def norm(weight: Shape, _rank: int = 0) -> Shapes:
    """The differences of a normalisation's weight and bias."""
    return {"w_norm": weight, "b_norm": weight}


def oft(weight: Shape, rank: int, *, rescaled: bool = False) -> Shapes:
    """Blocks that turn neighbouring outputs; the rank is a block's side at most."""
    side, count = split(weight[0], rank)
    return {"oft_blocks": (count, side, side), **rescale(weight, rescaled)}


def boft(weight: Shape, rank: int, *, rescaled: bool = False) -> Shapes:
    """Blocks in several stages that mix ever farther outputs.

    Raises: ValueError where the outputs cannot be divided so.
    """
    side = butterfly_side(weight[0], rank)
    if not side:
        least = butterfly_side(weight[0])
        raise ValueError(f"{weight[0]} outputs need a rank of at least {least}")
    count = weight[0] // side
    stages = (count - 1).bit_count() + 1
    return {"oft_blocks": (stages, count, side, side), **rescale(weight, rescaled)}


def split(size: int, factor: int = -1) -> tuple[int, int]:
    """A size as a product (smaller, larger).

    One of them is the factor if it divides the size; else the pair is the most even one whose
    smaller part is at most the factor (-1: no bound).
    """
    if factor > 0 and size % factor == 0:
        pair = factor, size // factor
        return min(pair), max(pair)
    most = math.isqrt(size) if factor < 0 else min(factor, math.isqrt(size))
    small = next((n for n in range(most, 0, -1) if size % n == 0), 1)
    return small, size // small


def butterfly_side(size: int, most: int = 0) -> int:
    """The side of BOFT's blocks: the largest even one up to `most` with size / side a power of 2.

    0 where there is none. most = 0: the smallest such number.
    """
    sides = [side for side in range(2, size + 1, 2) if size % side == 0 and _is_power(size // side)]
    if not most:
        return min(sides, default=0)
    return max((side for side in sides if side <= most), default=0)


def magnitude(weight: Shape, *, on_output: bool) -> Shape:
    """DoRA's magnitudes: O 1 (1 1), one for each output, or 1 I (1 1), one for each input."""
    outputs, inputs, *kernel = weight
    return (outputs, 1, *[1] * len(kernel)) if on_output else (1, inputs, *[1] * len(kernel))


def on_output(found: Shape, weight: Shape) -> bool:
    """A file's magnitudes belong to the outputs, else to the inputs: the place of the 1 tells.

    Only that: in a square layer both have the same number of values.

    Raises: ValueError where the shape is neither.
    """
    padded = _padded(found, len(weight))
    for is_output in (True, False):
        if len(found) > 1 and padded == magnitude(weight, on_output=is_output):
            return is_output
    sides = " or ".join(str(magnitude(weight, on_output=side)) for side in (True, False))
    raise ValueError(f"shapes of dora_scale: {found} in the file, {sides} here")


def magnitudes_on_output(shapes: Mapping[str, Shape]) -> bool | None:
    """Where a whole file's DoRA has its magnitudes; None where it has none that tell.

    shapes: of its tensors, by their full names.
    """
    for name, shape in shapes.items():
        if name.endswith(".dora_scale") and len(shape) > 1 and 1 in shape[:2] != (1, 1):
            return shape[1] == 1
    return None


def alike(found: Shape, own: Shape) -> bool:
    """A file's shape says the same as ours, so that reshaping moves no value to another place.

    It may lack or add 1s at the end (a 1x1 convolution is kept as a matrix by some), and the sides
    behind the first may be one (a kernel that is kept as a matrix).
    """
    longest = max(len(found), len(own))
    if _padded(found, longest) == _padded(own, longest):
        return True
    return len(found) == 2 < len(own) and found == (own[0], math.prod(own[1:]))


def matched(found: Shapes, own: Shapes) -> Shapes:
    """Our shapes, where a file's tensors fit them.

    Raises: ValueError where roles or shapes differ.
    """
    if found.keys() != own.keys():
        extra, missing = sorted(found.keys() - own.keys()), sorted(own.keys() - found.keys())
        raise ValueError(
            f"the file has {', '.join(found)}; here "
            + " and ".join(
                [f"{role} has no place" for role in extra]
                + [f"{role} is needed" for role in missing]
            )
        )
    for role, shape in found.items():
        if not alike(shape, own[role]):
            raise ValueError(f"shapes of {role}: {shape} in the file, {own[role]} here")
    return own


def side(shapes: Shapes, role: str, axis: int = 0) -> int:
    """One side of a file's tensor, such as the rank.

    Raises: ValueError where the tensor has no such side, or nothing along it.
    """
    shape = shapes.get(role, ())
    if not -len(shape) <= axis < len(shape) or not shape[axis]:
        raise ValueError(f"{role} has the shape {shape}")
    return shape[axis]


def lokr_like(weight: Shape, found: Shapes) -> Shapes:
    """LoKr's tensors for factors as large as a file's; its roles say which are of low rank.

    Raises: ValueError where such factors do not make up the layer's weight.
    """
    outputs, inputs, *kernel = weight
    shapes: Shapes = {}
    if "lokr_w1" in found:
        small_out, small_in = side(found, "lokr_w1"), side(found, "lokr_w1", 1)
        shapes["lokr_w1"] = (small_out, small_in)
    else:
        small_out, small_in = side(found, "lokr_w1_a"), side(found, "lokr_w1_b", 1)
        rank = side(found, "lokr_w1_b")
        shapes |= {"lokr_w1_a": (small_out, rank), "lokr_w1_b": (rank, small_in)}
    large_out, large_in = outputs // small_out, inputs // small_in
    if (small_out * large_out, small_in * large_in) != (outputs, inputs):
        raise ValueError(f"a small factor of {small_out} x {small_in} does not divide {weight}")
    if "lokr_w2" in found:
        shapes["lokr_w2"] = (large_out, large_in, *kernel)
    elif "lokr_t2" in found:
        rank = side(found, "lokr_w2_b")
        shapes["lokr_t2"] = (rank, rank, *kernel)
        shapes |= {"lokr_w2_a": (rank, large_out), "lokr_w2_b": (rank, large_in)}
    else:
        rank = side(found, "lokr_w2_b")
        shapes["lokr_w2_a"] = (large_out, rank)
        shapes["lokr_w2_b"] = (rank, large_in * math.prod(kernel))
    return shapes


def written(shapes: Shapes) -> Shapes:
    """What a file holds of them: of LoKr's Tucker parts the factor that they make."""
    if "lokr_t2" not in shapes:
        return shapes
    parts = ("lokr_t2", "lokr_w2_a", "lokr_w2_b")
    core, wide, high = (shapes[role] for role in parts)
    others = {role: shape for role, shape in shapes.items() if role not in parts}
    return {**others, "lokr_w2": (wide[1], high[1], *core[2:])}


def _padded(shape: Shape, length: int) -> Shape:
    return (*shape, *[1] * (length - len(shape)))


def _is_power(number: int) -> bool:
    return number.bit_count() == 1


def _is_wide(weight: Shape) -> bool:
    """A convolution that looks at neighbours."""
    return any(side != 1 for side in weight[2:])


def _magnitude(weight: Shape, dora_wd: bool, on_output: bool) -> Shapes:
    return {"dora_scale": magnitude(weight, on_output=on_output)} if dora_wd else {}


def rescale(weight: Shape, rescaled: bool) -> Shapes:
    """OFT's factor for each output, where it is asked for."""
    return {"rescale": (weight[0], *[1] * (len(weight) - 1))} if rescaled else {}
