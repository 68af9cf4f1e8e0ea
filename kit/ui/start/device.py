"""This machine's GPU without torch, and which precisions it has.

The training asks torch (kit.devices); both say the same, or the form would advise what is refused.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

from kit.settings.rules.machine import gpu_ids

BF16_FROM = 8.0  # compute capability: Ampere; a T4 (7.5) only emulates it


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as its driver tells of it."""

    name: str
    megabytes: int
    capability: float | None = None  # None: a driver that is too old to tell

    @property
    def words(self) -> str:
        """`NVIDIA T4, 15 GB`."""
        return f"{self.name}, {self.megabytes / 1024:.0f} GB"


@cache
def gpus() -> tuple[Gpu, ...]:
    """All NVIDIA GPUs of this machine that CUDA would show, in its order."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return ()
    for fields in ("name,memory.total,compute_cap", "name,memory.total"):
        if lines := _asked(fields):
            return tuple(gpu for line in lines if (gpu := read(line)))
    return ()


def gpu(numbers: str = "") -> Gpu | None:
    """The GPU that would train; numbers: the setting gpu_ids."""
    found, first = gpus(), (*gpu_ids(numbers), 0)[0]
    return found[first] if first < len(found) else (found[0] if found else None)


def read(line: str) -> Gpu | None:
    """A line of nvidia-smi's csv; None where it tells no memory."""
    name, megabytes, capability = (*(part.strip() for part in line.split(",")), "", "")[:3]
    try:
        return Gpu(name, int(float(megabytes)), float(capability) if capability else None)
    except ValueError:
        return None


def precisions(found: Gpu | None) -> tuple[str, ...]:
    """Values of mixed_precision that work here, the best last; all where it is not known."""
    if found is None:
        # Apple's GPUs are only known to train right in 32 bits.
        return ("no",) if sys.platform == "darwin" else ("bf16", "no")
    if found.capability is None:
        return ("no", "bf16", "fp16")
    return ("no", "fp16", "bf16") if found.capability >= BF16_FROM else ("no", "fp16")


def _asked(fields: str) -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return told.stdout.strip().splitlines()
