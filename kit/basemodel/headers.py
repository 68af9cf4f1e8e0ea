"""Names and shapes of the tensors in one file of weights, without reading the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.basemodel.pickles import state_of
from kit.errors import ModelError

LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *PICKLES)


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
    size = path.stat().st_size
    with path.open("rb") as file:
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
        entries: dict[str, Any] = json.loads(text)
        metadata = entries.pop("__metadata__", {})
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _not_safetensors(path, start) from error
    if size < 8 + length + end:
        raise _cut_short(path, size, 8 + length + end)
    return Header(shapes, {str(key): str(value) for key, value in metadata.items()})


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
