"""Is a run of this name at work now? Asked before the same is begun once more."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from kit.hosts import host
from kit.runs.lock import Words, who_is_at_work_in
from kit.runs.run import place_for

ENDINGS = (".run", ".safetensors", ".ckpt", ".pt")  # what makes a name taken


def folders_of(output_dir: Path, name: str) -> Iterator[Path]:
    """The folders of the runs that a name may mean: its own, and NAME-2 and so on where that is.

    A run that finds its name taken trains as NAME-2: who asks for NAME again means that one, too.
    """
    places = _places(output_dir)
    for number in itertools.count(1):
        candidate = name if number == 1 else f"{name}-{number}"
        yield from (place / f"{candidate}.run" for place in places)
        if not any(_is_there(place, candidate) for place in places):
            return


def at_work_as(output_dir: Path, name: str) -> tuple[Path, Words] | None:
    """The run of this name that trains now, and what its holder wrote; None where none does."""
    for run_dir in folders_of(output_dir, name):
        if (holder := who_is_at_work_in(run_dir)) is not None:
            return run_dir, holder
    return None


def place_of(holder: Words) -> str:
    """Where a holder is at work: "in this kernel", or "in process 4711 on gpubox"."""
    is_here = holder.get("host") in (None, socket.gethostname())
    if is_here and holder.get("pid") == os.getpid():
        return "in this kernel"
    who = f"in process {holder['pid']}" if "pid" in holder else "in another process"
    return who if is_here else f"{who} on {holder['host']}"


def _places(output_dir: Path) -> list[Path]:
    """Where a run of this output folder may lie: there, and where it works if that is slow."""
    machine = host()
    if machine.scratch is None or not machine.is_slow(output_dir):
        return [output_dir]
    return [output_dir, place_for(output_dir, machine.scratch)]


def _is_there(place: Path, name: str) -> bool:
    return any(os.path.lexists(place / f"{name}{ending}") for ending in ENDINGS)
