"""The file of a state: written with checksums, and looked through before it is believed.

torch.save makes a zip, and puts a CRC-32 of every record into it; reading, torch does not look at
it. `kit.runs.state_files.damage` does, so that states of every version are checked alike.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from kit.errors import OutputError
from kit.runs.state_files import damage

FORMAT = 1
KEYS = {"format", "step", "network", "optimizer", "schedule", "scaler", "losses"}


class Damaged(ValueError):
    """The file holds no state that could be believed; says why, in half a sentence."""


def read_state(path: Path) -> dict[str, Any]:
    """Weights, optimizer, schedule, scaler, losses and step, all on the CPU.

    Raises: Damaged; OutputError where a later version has written it, or it may not be read.
    """
    if path.exists() and not os.access(path, os.R_OK):
        raise OutputError(
            f"The state {path} may not be read: Permission denied.",
            do="Give yourself the right to read it, or start as the user who owns it.",
        )
    if why := damage(path):
        raise Damaged(why)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise Damaged(error.strerror or "it cannot be read") from error
    except Exception as error:  # torch's advice to read it unchecked must not be passed on
        raise Damaged("it holds something else than tensors and numbers") from error
    if not isinstance(state, dict) or not state.keys() >= KEYS:
        raise Damaged("it is something else than a state")
    if state["format"] != FORMAT:
        raise OutputError(
            f"The state was written by another version of LoRA Kit: {path}.",
            do=f"Go on with that version, or delete the folder {path.parent} to begin again.",
        )
    return state


def optimizer_of(state: Mapping[str, Any]) -> str:
    """Which optimizer made it: its name in the menu, or in old states a class path.

    A path changes when a class moves within its package: see `class_name`.
    """
    made = state.get("optimizer_type") or state.get("optimizer_kind")
    return made if isinstance(made, str) else ""


def glance(path: Path) -> tuple[str, str]:
    """The same of a file, and what was asked for then, while no tensor is read.

    "" where the file does not say it, whatever is wrong: who reads the state itself tells that.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:
        return "", ""
    if not isinstance(state, dict):
        return "", ""
    asked = state.get("optimizer_asked")
    return optimizer_of(state), asked if isinstance(asked, str) else ""


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write it as it is, checksums included.

    Raises: OSError where it cannot be written.
    """
    with path.open("wb") as file:
        told = _Told(file)
        try:
            torch.save(dict(state, format=FORMAT), told)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise told.error or error from error


def apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same with memory of their own: views would write the whole buffer that they are of."""
    for name, tensor in tensors.items():
        tensors[name] = tensor.clone()
    return tensors


def bytes_of(value: object) -> int:
    """What the tensors in it take, about the size of its file."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(bytes_of, value.values()))
    return sum(map(bytes_of, value)) if isinstance(value, list | tuple) else 0


class _Told:
    """A file for torch's writer, which tells a full disk as a wrong position in its own code."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write it; the first error is remembered."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Pass what is buffered on."""
        self._file.flush()
