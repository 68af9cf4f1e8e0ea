"""Where named data sets lie on each kind of machine, and where they are kept for another day."""

from __future__ import annotations

from pathlib import Path

from kit.hosts import Host
from kit.reading.paths import path_of

NAME = "datasets"
KAGGLE = Path("/kaggle/input")


def datasets_folder(here: Host) -> Path:
    """Where uploads go: fast, and writable."""
    root = here.output_folder if here.name == "kaggle" else here.data_folder
    return path_of(root / NAME).absolute()


def kept_folder(here: Host) -> Path | None:
    """Where a copy is kept: beside the results, if these lie on a storage that is kept but slow."""
    return here.output_folder / NAME if here.is_slow(here.output_folder) else None


def given_folders(here: Host, kaggle: Path = KAGGLE) -> list[Path]:
    """Folders that the machine itself offers: Kaggle's inputs."""
    if here.name != "kaggle" or not kaggle.is_dir():
        return []
    return sorted(path for path in kaggle.iterdir() if path.is_dir())
