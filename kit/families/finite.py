"""Whether a base model's weights are numbers at all: NaN and Inf are told of before they spread."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from kit.errors import ModelError


def check_finite(module: nn.Module, path: Path) -> None:
    """Look at every weight once, in the precision it was loaded in, on the device it is on.

    module: a part of the base model, or any piece of one; path: what it was read from.

    Each tensor is summed, which NaN and Inf always spoil: one pass, without a copy, in its own
    precision (on a CPU a sum of halves in 32 bits takes fourteen times as long). A sum that is not
    finite is looked at closely, as sums of large numbers overflow, too.

    Raises: ModelError with the tensor's name and the file.
    """
    tensors = {
        name: tensor
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
        if tensor.is_floating_point() and tensor.numel() and not tensor.is_meta
        if tensor.element_size() > 1  # of 8 bits no sums are made
    }
    if not tensors:
        return
    with torch.no_grad():
        sums = torch.stack([tensor.sum().float() for tensor in tensors.values()])
        doubtful = (~sums.isfinite()).tolist()  # the one time that a GPU is waited for
        wrong = {
            name: count
            for (name, tensor), doubts in zip(tensors.items(), doubtful, strict=True)
            if doubts and (count := int((~tensor.isfinite()).sum()))
        }
    if wrong:
        raise _broken(path, wrong, tensors)


def _broken(path: Path, wrong: dict[str, int], tensors: dict[str, torch.Tensor]) -> ModelError:
    name, count = next(iter(wrong.items()))
    tensor = tensors[name]
    others = (
        f" So do {len(wrong) - 1} more of its {len(tensors)} tensors." if len(wrong) > 1 else ""
    )
    precision, is_half = str(tensor.dtype).removeprefix("torch."), tensor.dtype is torch.float16
    return ModelError(
        f"{path} is broken: {count} of the {tensor.numel()} values of {name} are no numbers (NaN "
        f"or Inf).{others}",
        f"A merge or a conversion that went wrong leaves such files. It was read as {precision}"
        + (", which has no room for numbers above 65504." if is_half else "."),
        "Fetch the model again or choose another"
        + (", or set mixed_precision = bf16." if is_half else "."),
    )
