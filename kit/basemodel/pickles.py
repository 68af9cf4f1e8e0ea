"""Tensors out of a torch file (.ckpt, .pt, .bin), without running anything that it says.

    state_of(path)                      names, shapes, and where the values lie
    read_tensors(path, mapped=True)     the same as torch's tensors

A pickle is a list of instructions that may import and call anything. Here the names of six of
torch's own constructors are known and stand for plain notes of where a tensor lies; every other
name becomes `Inert`, which does nothing. Checkpoints hold such names beside their weights:
sd-v1-4.ckpt has its trainer's callbacks. No named module is imported, and torch only for values.

Source: torch's file formats, https://pytorch.org/docs/stable/notes/serialization.html, and that of
torch < 1.6 (four pickles, then the storages one after the other).
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kit.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_PICKLE = 100_000_000  # bytes of instructions; those of SDXL are 0.4 million
# A storage's class -> torch's name of the values' type, bytes of one.
STORAGES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "UntypedStorage": ("uint8", 1),
}
FLOAT8 = {f"float8_{kind}" for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0fnu")}
_OLD_MAGIC = 0x1950A86A20F9469CFC6C


class Inert:
    """Whatever a pickle names and we do not know: it can be made, filled and called in vain."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Inert:
        """Takes anything."""
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Takes anything."""

    def __call__(self, *_args: Any, **_kwargs: Any) -> Inert:
        """Does nothing."""
        return Inert()

    def _nothing(self, *_args: Any) -> None:
        """What a pickle would put into it."""

    __setstate__ = __setitem__ = append = extend = add = _nothing


class _Fixed:
    """Its attributes cannot be set from a pickle."""

    __slots__ = ()

    def __setstate__(self, *_state: Any) -> None:
        """Attributes of the pickle are left out."""


class _Dict(_Fixed, dict):  # type: ignore[type-arg]
    """An OrderedDict of the file."""

    __slots__ = ()


@dataclass(frozen=True)
class Storage:
    """A row of values in the file."""

    key: str
    dtype: str  # torch's name
    size: int  # bytes of one value
    count: int
    first: int = 0  # where a view of an old file's storage begins, in values

    def __setstate__(self, *_state: Any) -> None:
        """Attributes of the pickle are left out."""


@dataclass(frozen=True)
class Stored:
    """A tensor in the file: where its storage's bytes lie, and how it looks into them."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    begin: int = 0  # of the storage, in bytes from the file's start

    @property
    def end(self) -> int:
        """Where the bytes that it may look at end."""
        return self.begin + (self.storage.first + self.storage.count) * self.storage.size

    def __setstate__(self, *_state: Any) -> None:
        """Attributes of the pickle are left out."""

    @property
    def dtype(self) -> str:
        """The type of the values, in torch's words."""
        return self.storage.dtype


class _Type(_Fixed):
    """A storage class or a dtype, as its name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *_args: Any) -> Inert:
        return Inert()


class _Maker(_Fixed):
    """One of torch's constructors of tensors."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any) -> Any:
        if self.name.startswith("_rebuild_parameter"):
            return args[0]  # a Parameter is its data here
        if self.name == "_rebuild_from_type_v2":  # a tensor with attributes of its own
            made, inner = args[0], args[2]
            return made(*inner) if isinstance(made, _Maker) else Inert()
        return _stored(*args, typed=self.name == "_rebuild_tensor_v3")


_MAKERS = {
    "_rebuild_tensor",
    "_rebuild_tensor_v2",
    "_rebuild_tensor_v3",
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
    "_rebuild_from_type_v2",
}


def _stored(storage: Any, offset: Any, shape: Any, stride: Any, *more: Any, typed: bool) -> Any:
    """Raises: ValueError where it reaches beyond its storage."""
    if not isinstance(storage, Storage):
        return Inert()
    if typed:  # told beside an untyped storage
        name = more[2].name
        size = 1 if name in FLOAT8 else next(s for n, s in STORAGES.values() if n == name)
        storage = replace(storage, dtype=name, size=size, count=storage.count // size)
    numbers = [offset, *shape, *stride]
    if len(shape) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a tensor without a proper shape")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if math.prod(shape) and last >= storage.count:
        raise ValueError("a tensor that reaches beyond its values")
    return Stored(storage, storage.first + offset, tuple(shape), tuple(stride))


class _Unpickler(pickle.Unpickler):
    """Imports nothing: every name is one of ours."""

    def __init__(self, file: BinaryIO, storages: dict[str, Storage]) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name."""
        if module == "collections" and name == "OrderedDict":
            return _Dict
        if module in ("torch._utils", "torch._tensor") and name in _MAKERS:
            return _Maker(name)
        if module.partition(".")[0] == "torch" and name in STORAGES:
            return _Type(name)
        dtypes = FLOAT8 | {dtype for dtype, _ in STORAGES.values()}
        return _Type(name) if module == "torch" and name in dtypes else Inert

    def persistent_load(self, pid: Any) -> Any:
        """A storage; its values lie outside of the pickle."""
        if not isinstance(pid, tuple) or pid[0] != "storage" or not isinstance(pid[1], _Type):
            return Inert()
        key, count, view = str(pid[2]), pid[4], pid[5] if len(pid) > 5 else None
        dtype, size = STORAGES[pid[1].name]
        whole = self.storages.setdefault(key, Storage(key, dtype, size, count))
        return whole if view is None else replace(whole, first=view[1], count=view[2])


def state_of(path: Path) -> dict[str, Stored]:
    """The tensors of a torch file by name, those of its `state_dict` where it has one.

    Raises: ModelError where it is damaged, contains itself, or is no torch file.
    """
    try:
        contents, begins = _read(path)
        tensors = dict(_tensors(_inner(contents, path), begins))
        _check_inside(path, tensors.values())
    except ModelError:
        raise
    except Exception as error:  # broken pickles raise ten kinds of errors
        raise _unreadable(path, error) from error
    return tensors


def read_tensors(path: Path, *, mapped: bool) -> dict[str, Tensor]:
    """The tensors themselves, on the CPU; mapped: their values stay on disk until they are used.

    Raises: ModelError as state_of.
    """
    import torch  # late: names and shapes are told without it

    found = state_of(path)
    if mapped:
        size = path.stat().st_size
        whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        return {name: _tensor(whole[s.begin : s.end], s) for name, s in found.items()}
    read: dict[int, Tensor] = {}  # tensors that share a storage go on sharing it
    with path.open("rb") as file:
        for stored in sorted(found.values(), key=lambda s: (s.begin, -s.end)):
            if stored.begin not in read and stored.end > stored.begin:
                file.seek(stored.begin)
                content = bytearray(file.read(stored.end - stored.begin))
                read[stored.begin] = torch.frombuffer(content, dtype=torch.uint8)
    none = torch.empty(0, dtype=torch.uint8)
    return {name: _tensor(read.get(s.begin, none), s) for name, s in found.items()}


def _tensor(values: Tensor, stored: Stored) -> Tensor:
    """A look into the bytes of its storage."""
    import torch

    dtype = getattr(torch, stored.dtype)
    if not math.prod(stored.shape):
        return torch.empty(stored.shape, dtype=dtype)
    if values.data_ptr() % stored.storage.size:
        values = values.clone()  # files of torch < 1.6 do not align them
    flat = values[: values.numel() // stored.storage.size * stored.storage.size].view(dtype)
    return flat.as_strided(stored.shape, stored.stride, flat.storage_offset() + stored.offset)


def _inner(contents: Any, path: Path) -> Mapping[Any, Any]:
    """What lies within `state_dict`, which some checkpoints have within another."""
    seen: list[Any] = []
    while isinstance(contents, dict) and isinstance(contents.get("state_dict"), dict):
        if any(contents is outer for outer in seen):
            raise ModelError(
                f"{path} contains itself: its state_dict is what it lies in.",
                "A file of weights holds tensors by name, at most within one state_dict.",
                "Use another version of the file.",
            )
        seen.append(contents)
        contents = contents["state_dict"]
    return contents if isinstance(contents, dict) else {}


def _tensors(
    contents: Mapping[Any, Any], begins: Mapping[str, int]
) -> Iterator[tuple[str, Stored]]:
    for name, tensor in contents.items():
        if isinstance(tensor, Stored):
            yield str(name), replace(tensor, begin=begins[tensor.storage.key])


def _check_inside(path: Path, tensors: Any) -> None:
    size = path.stat().st_size
    for tensor in tensors:
        if tensor.end > size:
            raise ValueError("it is cut short")


def _read(path: Path) -> tuple[Any, dict[str, int]]:
    """The unpickled contents, and where each storage begins in the file."""
    if zipfile.is_zipfile(path):
        return _read_zip(path)
    with path.open("rb") as file:
        return _read_old(file)


def _read_zip(path: Path) -> tuple[Any, dict[str, int]]:
    storages: dict[str, Storage] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        listed = {info.filename: info for info in archive.infolist()}
        main = next(name for name in listed if name.rpartition("/")[2] == "data.pkl")
        root = main.removesuffix("data.pkl")
        if f"{root}constants.pkl" in listed:
            raise ValueError("a compiled program (TorchScript)")
        if f"{root}byteorder" in listed and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("written by a machine of the other byte order")
        if listed[main].file_size > LONGEST_PICKLE:
            raise ValueError("its table is too long")
        contents = _Unpickler(io.BytesIO(archive.read(main)), storages).load()
        begins = {key: _begin(file, listed[f"{root}data/{key}"], s) for key, s in storages.items()}
    return contents, begins


def _begin(file: BinaryIO, info: zipfile.ZipInfo, storage: Storage) -> int:
    """Where an entry's bytes lie: after its local header, whose names may differ in length."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError("its weights are compressed")
    if info.file_size < storage.count * storage.size:
        raise ValueError("it is cut short")
    file.seek(info.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\x03\x04":
        raise ValueError("an entry without header")
    return (
        info.header_offset
        + 30
        + int.from_bytes(header[26:28], "little")
        + int.from_bytes(header[28:30], "little")
    )


def _read_old(file: BinaryIO) -> tuple[Any, dict[str, int]]:
    """Magic number, version, machine, contents, the storages' keys; then each with its count."""
    storages: dict[str, Storage] = {}

    def load() -> Any:
        return _Unpickler(file, storages).load()

    if load() != _OLD_MAGIC:
        raise ValueError("no torch file")
    load()
    machine = load()
    if not machine["little_endian"]:
        raise ValueError("written by a machine of the other byte order")
    contents, keys, begins = load(), load(), {}
    for key in keys:
        storage = storages[str(key)]
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise ValueError("a storage of another size")
        begins[str(key)] = file.tell()
        file.seek(storage.count * storage.size, io.SEEK_CUR)
    return contents, begins


def _unreadable(path: Path, error: Exception) -> ModelError:
    said = str(error).splitlines()[:1] if type(error) is ValueError else [type(error).__name__]
    return ModelError(
        f"{path} is damaged, or no file of weights ({' '.join(said)}).",
        "A download that broke off looks like this.",
        "Fetch the file again.",
    )
