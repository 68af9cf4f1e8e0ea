"""Randomness by address: every draw is a function of what it is for, not of what was drawn before.

The address of a draw is a tuple such as (seed, "noise", step, row). The same address always gives
the same numbers, so step n can be computed without living through steps 1 to n-1, and a resumed run
equals an unbroken one.
"""

from __future__ import annotations

import hashlib

import numpy as np

Part = int | str


def seed_for(*address: Part) -> int:
    """A well-mixed seed in [0, 2^63) for torch generators."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in address)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def random_at(*address: Part) -> np.random.Generator:
    """A numpy generator for this address."""
    return np.random.Generator(np.random.PCG64(seed_for(*address)))
