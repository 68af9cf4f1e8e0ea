"""A cache on disk: tensors by the hash of all that they depend on, and these hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kit.errors import DatasetError, Unreadable
from kit.events import Event, Noticed
from kit.reading.fields import Table
from kit.reading.texts import read_json
from kit.runs.atomic_write import write_atomically
from kit.runs.disk import why_unwritten

HASHES = "hashes.json"
SUM = "crc32"  # in a file's metadata


class DiskCache:
    """Tensors on disk by the hash of what they depend on; an unwritable place is left alone."""

    def __init__(self, root: Path, kind: str, *, trusted: bool = False) -> None:
        """kind: of what is kept, a folder below the root; trusted: as in `Hashes`."""
        self.folder, self.hashes = root / kind, Hashes(root, trusted=trusted)
        self.refused = ""
        self.damaged: list[Path] = []

    @staticmethod
    def key(*parts: object) -> str:
        """The hash of everything that the thing depends on."""
        text = json.dumps(parts, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, key: str, *names: str) -> dict[str, Tensor] | None:
        """What lies there, or None where nothing whole with these names does."""
        path = self.folder / f"{key}.safetensors"
        if not path.is_file():
            return None
        tensors = _whole(path)
        if tensors is None:
            self.damaged.append(path)
            return None
        return tensors if tensors.keys() >= set(names) else None

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep it; the first refusal of the disk is remembered and nothing more is tried."""
        if self.refused:
            return
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        path = self.folder / f"{key}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(
                path,
                lambda part: safetensors.torch.save_file(whole, part, {SUM: checksum(whole)}),
            )
        except (OSError, SafetensorError) as error:
            self.refused = why_unwritten(error, path)

    def notice(self) -> Iterator[Event]:
        """Tell what was damaged, and where the disk refused."""
        if self.damaged:
            yield Noticed(
                f"{len(self.damaged)} entries of the cache in {self.folder} were damaged and are "
                f"made anew, such as {self.damaged[0].name}"
            )
            self.damaged.clear()
        if self.refused:
            yield Noticed(
                f"the cache cannot be kept in {self.folder} ({self.refused}); it stays in memory "
                "for this run"
            )


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """A CRC-32 of names, types, shapes and bytes: what a file says of itself."""
    number = 0
    for name, tensor in sorted(tensors.items()):
        number = zlib.crc32(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode(), number)
        number = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy().data, number)
    return f"{number:08x}"


def _whole(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file, or None where it is not what was written.

    Files of versions without checksums are believed where every number is finite.
    """
    try:
        with safe_open(path, "pt") as file:
            told = (file.metadata() or {}).get(SUM)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return None
    if told is None:
        is_whole = all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    else:
        is_whole = told == checksum(tensors)
    return tensors if is_whole else None


class Hashes:
    """Hashes of what a cache depends on, by name, kept beside it."""

    def __init__(self, folder: Path, *, trusted: bool) -> None:
        """trusted: a hash that is kept is believed, without looking at what it is of."""
        self.path, self.trusted = folder / HASHES, trusted
        self._kept = self._read()
        self._seen: dict[str, str] = {}

    def of(self, name: str, look: Callable[[], str]) -> str:
        """The hash of that name; each is looked at once."""
        if name not in self._seen:
            is_believed = self.trusted and name in self._kept
            self._seen[name] = self._kept[name] if is_believed else look()
        return self._seen[name]

    def keep(self) -> None:
        """Write them for the next run; a disk that refuses is left alone."""
        text = json.dumps({**self._kept, **self._seen}, indent=0)
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, lambda part: part.write_text(text, "utf-8"))

    def _read(self) -> dict[str, str]:
        try:
            return Table(read_json(self.path), HASHES).texts_in()
        except Unreadable:
            return {}


def file_hash(path: Path) -> str:
    """A hash of an image file's bytes.

    Raises: DatasetError where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(
            f"The image {path} cannot be read: {error.strerror or error}",
            "It was there when the run was planned.",
            "Put it back, or plan the run again.",
        ) from error


def weights_hash(modules: Sequence[nn.Module]) -> str:
    """A hash of every weight's bytes, in the precision that it is used in."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            plain = tensor.detach().cpu().contiguous()
            digest.update(f"{name}{plain.dtype}{tuple(plain.shape)}".encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
