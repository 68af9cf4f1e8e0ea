"""Which precisions this machine trains in, without torch.

The training asks torch (kit.devices); both say the same, or the form would advise what is refused.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache

from kit.hosts import gpu

BF16_FROM = 8.0  # compute capability: Ampere; a T4 (7.5) only emulates it


@cache
def capability() -> float | None:
    """The first GPU's compute capability; None where its driver is too old to tell."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return float(told.stdout.strip().splitlines()[0])
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None


def precisions() -> tuple[str, ...]:
    """Values of mixed_precision that work here, the best last; all where it is not known."""
    if gpu() is None:
        # Apple's GPUs are only known to train right in 32 bits.
        return ("no",) if sys.platform == "darwin" else ("bf16", "no")
    found = capability()
    if found is None:
        return ("no", "bf16", "fp16")
    return ("no", "fp16", "bf16") if found >= BF16_FROM else ("no", "fp16")


def lacking(asked: str) -> str:
    """Why this precision cannot be trained in here; "" where it can."""
    possible, found = precisions(), gpu()
    if asked in possible:
        return ""
    where = f"on this {found.name}" if found else "without an NVIDIA GPU"
    return f"{asked} does not work {where}; it can do: {', '.join(possible)}"
