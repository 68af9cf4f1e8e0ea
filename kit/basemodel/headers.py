"""Names and shapes of the tensors in one file of weights, without reading the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from kit.basemodel.pickles import state_of
from kit.errors import ModelError, Unreadable
from kit.reading.fields import Table
from kit.reading.texts import from_json

LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
MOST_SIDES = 64  # of a tensor; torch's own limit
SUFFIXES = (".safetensors", *PICKLES)


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: bytes `begin` to `end` after the header."""

    dtype: str  # safetensors' name: F32, F16, BF16 ...
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file of weights says about itself."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_header(path: Path) -> Header:
    """Names and shapes of a .safetensors or torch file.

    A torch file is a pickle, of which nothing is run; see `kit.basemodel.pickles`.

    Raises: ModelError where it is cut short, or no file of weights.
    """
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    if path.suffix.lower() in PICKLES:
        return _read_pickle(path)
    raise ModelError(
        f"{path} is not a file of weights.",
        "A base model is a diffusers folder, a .safetensors or a .ckpt.",
        "Choose one of these.",
    )


def _read_safetensors(path: Path) -> Header:
    with _opened(path) as file:
        size = path.stat().st_size
        start = file.read(72)
        length = int.from_bytes(start[:8], "little")
        plausible = start[8:9] == b"{" and length <= LONGEST_HEADER
        if plausible and size < 8 + length:
            raise _cut_short(path, size)
        if not plausible:
            raise _not_safetensors(path, start)
        file.seek(8)
        text = file.read(length)
    try:
        entries, metadata = entries_in(text)
    except Unreadable as error:
        raise ModelError(
            f"{path} is no safetensors file, or damaged: {error.what} {error.why}.",
            "A safetensors file begins with a table of its tensors.",
            "Fetch the file again.",
        ) from error
    end = max((entry.end for entry in entries.values()), default=0)
    if size < 8 + length + end:
        raise _cut_short(path, size, 8 + length + end)
    return Header({name: entry.shape for name, entry in entries.items()}, metadata)


def entries_in(text: str | bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors and the metadata of a safetensors table.

    Raises: Unreadable where it is none.
    """
    table = Table(from_json(text, "its table"), "its table")
    metadata = table.texts("__metadata__", {})
    entries = {}
    for name, entry in table.tables():
        if name != "__metadata__":
            offsets = entry.wholes("data_offsets")
            if len(offsets) != 2 or offsets[0] > offsets[1]:
                raise Unreadable(entry.what[:200], "has no data_offsets in order")
            shape = entry.wholes("shape")
            if len(shape) > MOST_SIDES:
                raise Unreadable(entry.what[:200], f"has {len(shape)} sides")
            entries[name] = Entry(entry.text("dtype"), shape, *offsets)
    return entries, metadata


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelError(f"{path} cannot be read ({why}).", do="Check the path.") from error


def _read_pickle(path: Path) -> Header:
    return Header({name: stored.shape for name, stored in state_of(path).items()})


def _cut_short(path: Path, size: int, promised: int | None = None) -> ModelError:
    expected = f" of {promised:,}" if promised else ""
    return ModelError(
        f"{path} is cut short: {size:,}{expected} bytes are there.",
        "A download or copy that broke off looks like this.",
        "Fetch the file again.",
    )


def _not_safetensors(path: Path, start: bytes) -> ModelError:
    """Says what the file seems to be instead."""
    stripped = start.lstrip().lower()
    if stripped.startswith(b"version https://git-lfs"):
        seems, do = "a git-lfs pointer", "Run `git lfs pull`, or download the file itself."
    elif stripped.startswith(b"<"):
        seems, do = (
            "a web page",
            "Download from the file's own link; log in where the page asks for it.",
        )
    elif start.startswith(b"PK"):
        seems, do = "a torch file (.ckpt)", "Rename it to end in .ckpt."
    elif not start:
        seems, do = "empty", "Fetch the file again."
    else:
        seems, do = "something else", "Fetch the file again."
    return ModelError(
        f"{path} is no safetensors file; it seems to be {seems}.",
        "A safetensors file begins with a table of its tensors.",
        do,
    )
