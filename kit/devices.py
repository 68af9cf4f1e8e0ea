"""Which device trains, and in which precision it can."""

from __future__ import annotations

import gc

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from kit.errors import DeviceError

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def choose_device() -> torch.device:
    """CUDA before Apple's MPS before the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def describe(device: torch.device) -> str:
    """The device in words, e.g. `NVIDIA T4 (cuda:0)`."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    names = {"mps": "Apple GPU (mps)", "cpu": f"CPU, {torch.get_num_threads()} threads"}
    return names.get(device.type, str(device))


def check_precision(device: torch.device, mixed_precision: str) -> None:
    """Refuse a precision that the device lacks.

    Raises: DeviceError with the precisions that it has.
    """
    possible = _possible(device)
    if mixed_precision not in possible:
        raise DeviceError(
            f"mixed_precision = {mixed_precision} does not work on this device: "
            f"{describe(device)}.",
            f"It can do: {', '.join(possible)}.",
            f"Set mixed_precision = {possible[-1]}.",
        )


def _possible(device: torch.device) -> tuple[str, ...]:
    """What the device computes natively, the best one last."""
    if device.type == "cuda":
        # Emulated bf16 (a T4 with recent torch) would run, many times slower.
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("no", "fp16", "bf16") if has_bf16 else ("no", "fp16")
    # Apple's GPUs are only known to train right in 32 bits.
    return ("bf16", "no") if device.type == "cpu" else ("no",)


def make_accelerator(device: torch.device, mixed_precision: str) -> Accelerator:
    """An Accelerator for this run.

    Raises: DeviceError where several processes were launched.
    """
    # Its state is one per process and refuses another precision: a kernel trains more than once.
    AcceleratorState._reset_state()
    PartialState._reset_state()
    accelerator = Accelerator(mixed_precision=mixed_precision, cpu=device.type == "cpu")
    if accelerator.num_processes > 1:
        raise DeviceError(
            f"{accelerator.num_processes} processes were launched.",
            "LoRA Kit trains in one process.",
            "Start it without accelerate's --num_processes, or with --num_processes 1.",
        )
    return accelerator


def free_memory() -> None:
    """Give memory that nobody holds back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
