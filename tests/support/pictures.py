"""Tiny pictures and folders of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

Size = tuple[int, int]


def draw(path: Path, size: Size = (64, 64), *, mode: str = "RGB", color: object = "red") -> Path:
    """A picture of one colour; folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)
    return path


def folder_of(root: Path, folders: Mapping[str, Sequence[Size]]) -> Path:
    """Folders of PNG files 000.png, 001.png, ... with the given sizes."""
    for name, sizes in folders.items():
        (root / name).mkdir(parents=True)
        for number, size in enumerate(sizes):
            draw(root / name / f"{number:03}.png", size)
    return root
