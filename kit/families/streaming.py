"""Weights on their way from a file to the device: mapped, taken one by one, never held twice.

A mapped file costs no memory of its own: its pages are the system's, which drops them at need. They
count as the process's all the same, so they are given back as their values are taken. On a CPU,
weights that lie in the file as they are needed stay there, shared by all who train on that file.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import SEEK_END, BufferedReader
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from kit.basemodel.pickles import read_tensors
from kit.reading.texts import from_json

ALIGNMENT = 64  # bytes; torch's own allocations on the CPU begin at multiples of it
# A product with one row reads a matrix as it lies: from other places than these it sums otherwise.
MATRIX_ALIGNMENT = 16
PIECE = 64 * 2**20  # bytes between two times of giving pages back
HEADER = 8  # bytes that say how long the header of a .safetensors is
# Source: https://github.com/huggingface/safetensors#format
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass
class Weights:
    """Tensors by name, and the mappings that they look into."""

    tensors: dict[str, Tensor]
    mappings: list[mmap.mmap] = field(default_factory=list)

    def __deepcopy__(self, _memo: object) -> Weights:
        """Itself: a file is there once."""
        return self

    def __or__(self, other: Weights) -> Weights:
        """Those of both: the parts of one model."""
        return Weights(self.tensors | other.tensors, [*self.mappings, *other.mappings])

    def precision(self, prefix: str) -> torch.dtype | None:
        """What a part lies in, so that reading copies nothing; None: several precisions."""
        own = [tensor for name, tensor in self.tensors.items() if name.startswith(prefix)]
        kinds = {each.dtype for each in own or self.tensors.values() if each.is_floating_point()}
        return kinds.pop() if len(kinds) == 1 else None

    def release(self) -> None:
        """Give back the pages that were read; who looks again reads them from the file anew."""
        for mapping in self.mappings:
            if hasattr(mapping, "madvise"):  # not on Windows
                mapping.madvise(mmap.MADV_DONTNEED)


def read_weights(paths: Iterable[Path], *, mapped: bool) -> Weights:
    """The tensors of .safetensors files; mapped: their values stay in the file until they are used.

    Raises: SafetensorError, OSError for a file that is none.
    """
    weights = Weights({})
    for path in paths:
        weights |= _one(path, mapped=mapped)
    return weights


def open_weights(path: Path, *, mapped: bool) -> Weights:
    """All tensors of a file, mapped from disk if that is wanted and the format allows it."""
    if path.suffix.lower() == ".safetensors":
        return read_weights([path], mapped=mapped)
    return Weights(read_tensors(path, mapped=mapped))


def _one(path: Path, *, mapped: bool) -> Weights:
    with safe_open(path, framework="pt") as checked:  # it refuses what does not lie in the file
        names = list(checked.keys())
    with path.open("rb") as file:
        size = int.from_bytes(file.read(HEADER), "little")
        header = from_json(file.read(size), path)
        # Private, and written to by nobody: torch warns of bytes that cannot be written.
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if mapped else _read(file)
    begin = HEADER + size
    tensors = {name: _tensor(whole, header[name], begin) for name in names}
    return Weights(tensors, [whole] if isinstance(whole, mmap.mmap) else [])


def _read(file: BufferedReader) -> bytearray:
    """All of a file, held once."""
    content = bytearray(file.seek(0, SEEK_END))
    file.seek(0)
    file.readinto(content)
    return content


def _tensor(whole: mmap.mmap | bytearray, entry: Mapping[str, Any], begin: int) -> Tensor:
    """A look into the file's bytes."""
    dtype, shape, (start, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if start == end:
        return torch.empty(shape, dtype=dtype)
    count = (end - start) // dtype.itemsize
    return torch.frombuffer(whole, dtype=dtype, count=count, offset=begin + start).reshape(shape)


def place(
    module: nn.Module, device: torch.device, dtype: torch.dtype | None, weights: Weights
) -> None:
    """Move a part to its device, a weight at a time, in its precision; buffers keep theirs.

    weights: where the part's weights come from; their pages are given back on the way.
    """
    if weights.mappings:
        vars(module)["from_file"] = weights
    passed = 0
    for owner in module.modules():
        for name, weight in list(owner.named_parameters(recurse=False)):
            begins = alignment_of(owner, weight)
            placed = nn.Parameter(
                placed_tensor(weight.detach(), device, dtype, begins), requires_grad=False
            )
            if weights.mappings:
                placed.in_file = weight.detach()  # type: ignore[attr-defined]
            setattr(owner, name, placed)
            passed += weight.nbytes
            if passed >= PIECE:
                weights.release()
                passed = 0
        for name, buffer in list(owner.named_buffers(recurse=False)):
            setattr(owner, name, placed_tensor(buffer, device, None))
    weights.release()


def alignment_of(owner: nn.Module, weight: Tensor) -> int:
    """At multiples of how many bytes a weight of this module has to begin on a CPU.

    Where it begins, it computes to the same bits as from everywhere else that is allowed, so that
    a folder, a single file and one that was read whole train to the same bits. Measured for every
    layer of SD 1.5, forward and backward, at all that a file allows: products with a single row
    differ off 16 bytes, and nothing else does.
    """
    if isinstance(owner, nn.Linear) and weight.dim() > 1:
        return MATRIX_ALIGNMENT
    return weight.element_size()


def placed_tensor(
    tensor: Tensor, device: torch.device, dtype: torch.dtype | None, alignment: int = ALIGNMENT
) -> Tensor:
    """The tensor on the device in that precision; itself where nothing is to be done.

    alignment: on the CPU it begins at a multiple of so many bytes.
    """
    placed = tensor.to(device=device, dtype=dtype)
    if placed.device.type == "cpu" and placed.data_ptr() % alignment:
        return placed.clone()
    return placed
