"""The base model's files on their way into memory while torch still loads.

Importing torch, diffusers and transformers takes a processor some seconds; a disk is idle then.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from kit.basemodel.detecting import ModelFile
from kit.basemodel.preflight import found_model
from kit.basemodel.weight_names import choose_weights
from kit.hosts import free_memory, host

PARTS = ("unet", "text_encoder", "text_encoder_2", "vae")


def read_ahead(name_or_path: str) -> threading.Thread | None:
    """Ask the system to fetch a model's weights from the disk; nobody waits for it.

    Nothing is asked for what is not on this machine, lies on a mounted drive, which is copied from
    first, or would not fit into the memory that is free. Returns the thread that asks, if one does.
    """
    found = found_model(name_or_path)
    if not isinstance(found, ModelFile) or host().is_slow(found.path):
        return None
    files = list(weight_files(found))
    with suppress(OSError):  # a file that is gone just now: who loads it tells
        if files and sum(file.stat().st_size for file in files) < free_memory():
            thread = threading.Thread(target=_ask, args=(files,), name="kit-ahead", daemon=True)
            thread.start()
            return thread
    return None


def weight_files(model: ModelFile) -> Iterator[Path]:
    """The files that its weights are read from."""
    if not model.is_folder:
        yield model.path
        return
    for part in PARTS:
        folder = model.path / part
        if folder.is_dir() and (weights := choose_weights(f.name for f in folder.iterdir())):
            yield from (folder / name for name in weights.names)


def _ask(files: Iterable[Path]) -> None:
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:  # Windows and macOS
        return
    for file in files:
        with suppress(OSError), file.open("rb") as opened:
            advise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
