"""Which GPUs this process may use, and how one of them is named to another process."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

from kit.errors import KitError
from kit.hosts import Gpu, gpus

VISIBLE = "CUDA_VISIBLE_DEVICES"


def there() -> tuple[Gpu, ...]:
    """The GPUs that CUDA would show here, in its numbering; none without an NVIDIA GPU."""
    found = gpus()
    if not found or VISIBLE not in os.environ:
        return found
    return tuple(
        found[int(word)] if word.isdecimal() and int(word) < len(found) else found[0]
        for word in itertools.takewhile(_names_one, _words())
    )


def visible(gpu: str) -> str:
    """What CUDA_VISIBLE_DEVICES must be for the GPU that is number so much in this process.

    Raises: KitError where this process sees fewer.
    """
    here = list(_words())
    if not here:
        return gpu
    if int(gpu) >= len(here):
        raise KitError(
            f"--gpus {gpu}: {VISIBLE} = {','.join(here)} shows {len(here)} here.",
            f"They are numbered from 0 to {len(here) - 1}.",
            f"Choose among them, or unset {VISIBLE}.",
        )
    return here[int(gpu)]


def _words() -> Iterator[str]:
    words = (word.strip() for word in os.environ.get(VISIBLE, "").split(","))
    return filter(None, words)


def _names_one(word: str) -> bool:
    """CUDA shows none from the first on that names none, such as -1."""
    return word.isdecimal() or word.startswith(("GPU-", "MIG-"))
