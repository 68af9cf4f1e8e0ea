"""Masks: which places of an image are learned, from a folder of pictures or from transparency.

A mask goes the image's own way: scaled, cut and mirrored alike, then averaged down to the latent's
size. Shapes: H W of the picture, h w of the latent; weights from 0 (left out) to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kit.dataset.buckets import Fit, Size
from kit.dataset.images import ENDINGS, TrainImage, measure, orientation_of
from kit.dataset.pixels import UPRIGHT, area_scaled, open_upright, prepared
from kit.errors import DatasetError

SAME_SHAPE = 0.02  # the widest difference of proportions that still is the same picture


def mask_files(folder: str) -> dict[str, Path]:
    """The pictures of a mask folder by their names without ending.

    Raises: DatasetError where there is no such folder.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DatasetError(
            f"conditioning_data_dir = {folder} is no folder.",
            "It holds a mask for each training image, under the same name; white is learned.",
            "Set it to that folder, or turn masked_loss off.",
        )
    files = (path for path in root.rglob("*") if path.suffix.lower() in ENDINGS)
    return {path.stem: path for path in sorted(files)}


def check_masks(images: Sequence[TrainImage], folder: str) -> None:
    """Every training image has a mask of its own proportions.

    Raises: DatasetError naming those that have none, or one of another shape.
    """
    files = mask_files(folder)
    asked = [image for image in images if not image.is_reg]
    missing = [image.path.name for image in asked if image.path.stem not in files]
    odd = list(_misshapen(asked, files))
    if missing or odd:
        told = [f"no mask for {_listed(missing)}"] if missing else []
        told += [f"masks of other proportions than their image: {_listed(odd)}"] if odd else []
        raise DatasetError(
            f"conditioning_data_dir = {folder}: {'; '.join(told)}.",
            "A mask has its image's name and proportions; its ending may differ.",
            "Put the masks there, or move the images away.",
        )


def mask_of(
    image: Path, place: Fit, offset: Size, *, flipped: bool, files: dict[str, Path], alpha: bool
) -> np.ndarray | None:
    """The weights of one cut of an image, shape (h, w), or None where all of it is learned.

    A mask from the folder counts before the image's own transparency.
    """
    if image.stem in files:
        grey = open_upright(files[image.stem])
    elif alpha and (found := _transparency(image)):
        grey = found
    else:
        return None
    pixels_HW3 = prepared(grey.convert("RGB"), place, offset, flipped=flipped)
    height, width = (side // 8 for side in pixels_HW3.shape[:2])
    weights_hw: np.ndarray = area_scaled(pixels_HW3, (width, height))[..., 0] / np.float32(255)
    return weights_hw.astype(np.float32)


def _transparency(image: Path) -> Image.Image | None:
    """The alpha channel, upright; None where the picture has none."""
    with Image.open(image) as file:
        if file.mode not in ("RGBA", "LA", "PA") and "transparency" not in file.info:
            return None
        turn = UPRIGHT.get(orientation_of(file))
        channel = file.convert("RGBA").getchannel("A")
    return channel if turn is None else channel.transpose(turn)


def _misshapen(images: Sequence[TrainImage], files: dict[str, Path]) -> Iterator[str]:
    for image in images:
        size = measure(files[image.path.stem]) if image.path.stem in files else None
        if isinstance(size, str):
            yield f"{files[image.path.stem].name} ({size})"
        elif size and abs(size[0] / size[1] * image.height / image.width - 1) > SAME_SHAPE:
            yield files[image.path.stem].name


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
