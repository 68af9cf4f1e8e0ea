"""What a command is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One word after `kit`."""

    help: str
    describe: Callable[[argparse.ArgumentParser], None]
    act: Callable[[argparse.Namespace], int | None]  # an exit code, where it is not 0
