"""LoRA files in and out, with the two hashes that kohya's tools and the WebUI look for.

    write_lora(path, cast(network.tensors(), "fp16"), metadata, save_as="safetensors")
    read_lora(path).tensors

torch is imported where tensors are made, so that reading a header costs a blink.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from kit.basemodel import headers
from kit.basemodel.pickles import Stored, read_tensors, state_of
from kit.errors import LoraFileError, ModelError, OutputError
from kit.exchange import foreign_lora
from kit.exchange.foreign_tensors import converted
from kit.runs.atomic_write import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

PRECISIONS = {"float": "float32", "fp16": "float16", "bf16": "bfloat16"}
LEGACY_WINDOW = slice(0x100000, 0x110000)  # the bytes behind the short, old hash

# How tensors' names end, in the words of kohya, LyCORIS, PEFT and diffusers; "" goes with any.
_NOT_KOHYAS = r"lora_[AB](?:\.\w+)?\.weight|lora(?:_linear_layer)?\.(?:up|down)\.weight"
TENSOR_NAMES = {
    kind: re.compile(rf"(.+?)[._]({ends})")
    for kind, ends in {
        "LoRA": rf"lora_(?:up|down|mid)\.weight|{_NOT_KOHYAS}",
        "LoHa": r"hada_(?:w[12]_[ab]|t[12])",
        "LoKr": r"lokr_(?:w[12](?:_[ab])?|t[12])",
        "OFT": r"oft_(?:blocks|diag)",
        "GLoRA": r"(?:[ab][12]|bm)\.weight",
        "full difference": r"diff(?:_b)?",
        "norm": r"[wb]_norm",
        "": r"alpha|dora_scale|rescale|lora_magnitude_vector(?:\.weight)?",
    }.items()
}
# A plain "weight" is iA3's only beside a name that cannot be a base model's.
TENSOR_NAMES["IA3"] = re.compile(r"(lora_\w+)\.(on_input|weight)")

# Found in a tensor's name -> what the file is instead. The first that fits counts.
_OTHERS: dict[str, tuple[str, ...]] = {
    "a ControlNet": ("control_model.", "controlnet_"),
    "a base model": ("model.diffusion_model.", "conditioner.embedders.", "cond_stage_model."),
    "an embedding (textual inversion)": ("emb_params", "string_to_param", "clip_g", "clip_l"),
    "a U-Net alone": ("down_blocks.0.resnets.0.time_emb_proj", "time_embedding.linear_1"),
    "a VAE": ("decoder.conv_in.", "first_stage_model."),
    "a text encoder alone": ("token_embedding.",),
}


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA file holds."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


_SHORT = (("float", "F"), ("int", "I"))
# torch's names of types that safetensors calls otherwise.
SAFETENSORS_NAMES = {
    **{f"{kind}{bits}": f"{short}{bits}" for bits in (16, 32, 64) for kind, short in _SHORT},
    "int8": "I8",
    "uint8": "U8",
    "bfloat16": "BF16",
}


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: bytes `begin` to `end` after the header."""

    dtype: str  # safetensors' name: F32, F16, BF16 ...
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The table at the start of a .safetensors."""

    entries: dict[str, Entry]
    metadata: dict[str, str]
    start: int  # of the tensors' bytes within the file


def split_name(name: str) -> tuple[str, str, str]:
    """A name as (module, role, kind): kind "" for alpha and such, module "" for what is no LoRA."""
    for kind, pattern in TENSOR_NAMES.items():
        if match := pattern.fullmatch(name):
            return match[1], match[2], kind
    return "", name, ""


def cast(tensors: Mapping[str, Tensor], precision: str) -> dict[str, Tensor]:
    """Every tensor, alphas too, as "float", "fp16" or "bf16"."""
    import torch

    dtype: torch.dtype = getattr(torch, PRECISIONS[precision])
    return {name: tensor.detach().to(dtype) for name, tensor in tensors.items()}


def write_lora(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, save_as: str
) -> None:
    """Write a LoRA file, whole or not at all; ckpt and pt carry no metadata.

    The same tensors and metadata give the same bytes. save_as: "safetensors", "ckpt" or "pt".

    Raises: LoraFileError where a value is not finite; OutputError where it cannot be written.
    """
    assert tensors and save_as in ("safetensors", "ckpt", "pt"), save_as
    plain = _plain(path, tensors)
    chunks = _safetensors(plain, metadata) if save_as == "safetensors" else _pickle(plain)

    def write(part: Path) -> None:
        with part.open("wb") as file:
            file.writelines(chunks)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)
    except OSError as error:
        size = sum(len(chunk) for chunk in chunks) / 1e6
        raise OutputError(
            f"The LoRA file {path} cannot be written: {error.strerror or error}.",
            f"It needs {size:.1f} MB in a folder where you may create files.",
            "Free some space, or choose another output_dir. Nothing was left half written.",
        ) from error


def read_lora(path: Path) -> LoraFile:
    """The tensors, by kohya's names, and the metadata of a LoRA file or a PEFT adapter folder.

    Raises: LoraFileError where it is missing, cut short, something else than a LoRA, or of a layout
    that cannot be converted exactly.
    """
    path = foreign_lora.file_of(path)
    if path.suffix.lower() in headers.PICKLES:
        tensors = _read_pickle(_existing(path))
        refuse_others(path, tensors)
        return LoraFile(converted(path, tensors, {}), {})
    header = read_header(path)
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, KeyError) as error:  # KeyError: a dtype that torch has not
        raise _unreadable(path, error) from error
    return LoraFile(converted(path, tensors, header.metadata), header.metadata)


def read_header(path: Path) -> Header:
    """Names, shapes and places of a LoRA file's tensors, which are not read.

    A torch file has no metadata, and its places count from the file's start.

    Raises: LoraFileError where it is missing, cut short, or something else than a LoRA.
    """
    try:
        if _existing(path).suffix.lower() in headers.PICKLES:
            stored = {name: _stored(tensor) for name, tensor in state_of(path).items()}
            refuse_others(path, stored)
            return Header(stored, {}, 0)
        headers.read_header(path)  # says in words what is wrong with the file
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            table: dict[str, Any] = json.loads(file.read(start - 8))
        metadata = {str(key): str(value) for key, value in table.pop("__metadata__", {}).items()}
        entries = {
            name: Entry(e["dtype"], tuple(map(int, e["shape"])), *map(int, e["data_offsets"]))
            for name, e in table.items()
        }
    except ModelError as error:
        whole = "A LoRA file is a whole .safetensors, .ckpt or .pt."
        raise LoraFileError(error.found, whole, error.do) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error
    refuse_others(path, entries)
    return Header(entries, metadata, start)


def _stored(tensor: Stored) -> Entry:
    """A tensor of a torch file; one that is no plain row of values ends at its last one."""
    kind = SAFETENSORS_NAMES.get(tensor.dtype, tensor.dtype.upper())
    size = tensor.storage.size
    begin = tensor.begin + tensor.offset * size
    return Entry(kind, tensor.shape, begin, begin + math.prod(tensor.shape) * size)


def refuse_others(path: Path, names: Collection[str]) -> None:
    """Say what a file is when it is no LoRA.

    Raises: LoraFileError.
    """
    if any(split_name(name)[2] for name in names):
        return
    foreign_lora.refuse_others(path, names)
    held = ", ".join(list(names)[:3]) or "no tensors"
    text = "\n".join(names)
    fitting = (what for what, marks in _OTHERS.items() if any(mark in text for mark in marks))
    raise LoraFileError(
        f"{path} is {next(fitting, 'something else')} and no LoRA; it holds {held}.",
        "A LoRA file holds pairs such as lora_up and lora_down.",
        "Choose a LoRA file. A base model goes into pretrained_model_name_or_path, a VAE into vae.",
    )


def model_hashes(path: Path) -> tuple[str, str]:
    """The old short hash and the SHA-256 of a base model's or VAE's file.

    A folder has the reference's word "IsADirectory" for both, what cannot be read "NOFILE".
    """
    if path.is_dir():
        return "IsADirectory", "IsADirectory"
    try:
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(LEGACY_WINDOW.start)
            return _short(file.read(LEGACY_WINDOW.stop - LEGACY_WINDOW.start)), whole
    except OSError:
        return "NOFILE", "NOFILE"


def _short(window: bytes) -> str:
    return hashlib.sha256(window).hexdigest()[:8]


def _plain(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, each with memory of its own, as the formats ask for."""
    import torch

    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    broken = [name for name, tensor in plain.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise LoraFileError(
            f"{path.name} is not written: {len(broken)} of {len(plain)} tensors hold values that "
            f"are not finite, e.g. {broken[0]}.",
            "fp16 ends at 65504, bf16 and float go much further; too high a rate breaks all three.",
            "Set save_precision to bf16 or float, or lower the learning rate.",
        )
    return plain


def _safetensors(
    tensors: dict[str, Tensor], metadata: Mapping[str, str]
) -> list[bytes | memoryview]:
    """Header length, header and tensors; the hashes are those of kohya's sd-scripts.

    They are taken of a file that holds the ss_* entries alone: the model hash of its tensors' bytes
    and the legacy hash of a fixed window. The header is then written anew, with all entries.
    """
    from safetensors.torch import save

    data = save(tensors, {k: v for k, v in metadata.items() if k.startswith("ss_")})
    start = 8 + int.from_bytes(data[:8], "little")
    values = memoryview(data)[start:]
    hashes = {
        "sshs_model_hash": hashlib.sha256(values).hexdigest(),
        "sshs_legacy_hash": _short(data[LEGACY_WINDOW]),
    }
    table = json.loads(data[8:start]) | {"__metadata__": {**metadata, **hashes}}
    header = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return [len(header).to_bytes(8, "little"), header, values]


def _pickle(tensors: dict[str, Tensor]) -> list[bytes | memoryview]:
    """To memory first: torch answers a full disk with an error of its own."""
    import torch

    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return [buffer.getvalue()]


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path, mapped=False)
    except ModelError as error:
        raise LoraFileError(error.found, error.possible, error.do) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _existing(path: Path) -> Path:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        possible = "A LoRA is one file, usually a .safetensors."
        raise LoraFileError(f"{path} {kind}.", possible, "Give the file's path.")
    return path


def _unreadable(path: Path, error: BaseException) -> LoraFileError:
    detail = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
    return LoraFileError(
        f"{path} cannot be read ({detail}).",
        "A download or copy that broke off looks like this.",
        "Fetch or copy the file again.",
    )
