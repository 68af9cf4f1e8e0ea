"""Compiling the U-Net with torch.compile, where that is asked for."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from kit import catalog
from kit.errors import DeviceError
from kit.settings import Machine

# Each bucket size is a compilation, and so are sampling and training; torch's own limit is 8.
SHAPES = 64


def compile_unet(unet: nn.Module, machine: Machine) -> None:
    """Let the U-Net compile itself, adapters included, when it is first called.

    Raises: DeviceError where the backend is not there; calls raise it where it fails.
    """
    backend = machine.dynamo_backend
    if backend == "no":
        return
    there = torch._dynamo.list_backends(exclude_tags=None)
    if backend not in there:
        possible = [name for name in catalog.COMPILERS if name in there]
        raise DeviceError(
            f"dynamo_backend = {backend} is not installed.",
            f"There are {', '.join(possible)}; others come with packages of their own.",
            "Set inductor, or no.",
        )
    limits: Any = torch._dynamo.config
    limits.cache_size_limit = max(SHAPES, limits.cache_size_limit)
    has_mode = catalog.COMPILERS[backend].has_modes and machine.dynamo_mode != "default"
    unet.compile(
        backend=backend,
        fullgraph=machine.dynamo_use_fullgraph,
        dynamic=True if machine.dynamo_use_dynamic else None,
        mode=machine.dynamo_mode if has_mode else None,
    )
    compiled: Any = unet._compiled_call_impl
    unet._compiled_call_impl = _telling(compiled, backend)


def _telling(compiled: Any, backend: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # advice to whoever writes compilers or diffusers
                return compiled(*args, **kwargs)
        except TorchDynamoException as error:
            raise DeviceError(
                f"dynamo_backend = {backend} cannot compile this U-Net: "
                f"{str(error).strip().splitlines()[0]}",
                "Compilers need programs of their own (inductor a C++ compiler, on GPUs Triton), "
                "and fullgraph a U-Net without breaks.",
                "Turn dynamo_use_fullgraph off, or set dynamo_backend = no.",
            ) from error

    return call
