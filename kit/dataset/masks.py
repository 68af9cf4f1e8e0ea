"""MaskFolder: which places of an image are learned, from a folder of pictures or from transparency.

A mask belongs to a folder and a name, as 001.png may well stand in two concept folders.

A mask goes the image's own way: scaled, cut and mirrored alike, then averaged down to the latent's
size. Shapes: H W of the picture, h w of the latent; weights from 0 (left out) to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kit.dataset.buckets import BucketFit, Size
from kit.dataset.files import image_files, measure, opened, orientation_of
from kit.dataset.images import TrainImage
from kit.dataset.pixels import UPRIGHT, area_scaled, open_upright, prepared
from kit.errors import DatasetError
from kit.reading.paths import is_folder, path_of

SAME_SHAPE = 0.02  # the widest difference of proportions that still is the same picture


@dataclass(frozen=True)
class MaskFolder:
    """The pictures of a mask folder, in it and in its sub-folders, by folder and stem."""

    root: Path
    files: Mapping[tuple[str, str], tuple[Path, ...]]  # ("", stem) directly in the folder

    def candidates(self, image: Path) -> tuple[Path, ...]:
        """`<mask folder>/<the image's folder>/<stem>` first, then `<mask folder>/<stem>`."""
        own = self.files.get((image.parent.name, image.stem), ())
        return own or self.files.get(("", image.stem), ())

    def of(self, image: Path) -> Path | None:
        """The image's mask; None where it has none. `check_masks` sees to it that one is one."""
        return next(iter(self.candidates(image)), None)


NO_MASKS = MaskFolder(Path(), {})


def mask_files(folder: str) -> MaskFolder:
    """What lies in a mask folder.

    Raises: DatasetError where there is no such folder.
    """
    root = path_of(folder, "conditioning_data_dir")
    if not is_folder(root):
        raise DatasetError(
            f"conditioning_data_dir = {folder} is no folder.",
            "It holds a mask for each training image, under the same name; white is learned.",
            "Set it to that folder, or turn masked_loss off.",
        )
    files: dict[tuple[str, str], tuple[Path, ...]] = {}
    inner = sorted(path for path in root.iterdir() if path.is_dir())
    for name, place in [("", root), *((path.name, path) for path in inner)]:
        for path in image_files(place):
            files[name, path.stem] = (*files.get((name, path.stem), ()), path)
    return MaskFolder(root, files)


def check_masks(images: Sequence[TrainImage], folder: str) -> None:
    """Every training image has one mask of its own, of its own proportions.

    Raises: DatasetError naming those that have none or several, or one of another shape.
    """
    masks = mask_files(folder)
    asked = [image for image in images if not image.is_reg]
    missing = [_place(image.path) for image in asked if not masks.candidates(image.path)]
    several = [text for image in asked if (text := _ambiguous(masks.candidates(image.path), masks))]
    odd = list(_misshapen(asked, masks))
    told = [f"no mask for {_listed(missing)}"] if missing else []
    told += [f"several masks for one image: {_listed(several)}"] if several else []
    told += list(_shared(asked, masks))
    told += [f"masks of other proportions than their image: {_listed(odd)}"] if odd else []
    if told:
        raise DatasetError(
            f"conditioning_data_dir = {folder}: {'; '.join(told)}.",
            "A mask has its image's name and proportions; its ending may differ. It lies in a "
            "folder named as the image's own, such as 10_cat, or directly in the mask folder.",
            "Put the masks there, one for each image, or move the images away.",
        )


def _place(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _ambiguous(found: Sequence[Path], masks: MaskFolder) -> str:
    """`a.png and a.jpg` for two candidates."""
    if len(found) < 2:
        return ""
    return " and ".join(path.relative_to(masks.root).as_posix() for path in found)


def _shared(images: Sequence[TrainImage], masks: MaskFolder) -> Iterator[str]:
    """MaskFolder that images of several folders would take: whose are they?"""
    takers: dict[Path, list[Path]] = {}
    for image in images:
        if (mask := masks.of(image.path)) is not None:
            takers.setdefault(mask, []).append(image.path)
    for mask, paths in takers.items():
        places = list(dict.fromkeys(path.parent for path in paths))
        if len(places) > 1:
            yield (
                f"{mask.relative_to(masks.root).as_posix()} could be the mask of "
                f"{_listed([str(path) for path in paths])}: {_apart(masks.root, places)}"
            )


def _apart(root: Path, places: Sequence[Path]) -> str:
    if len({place.name for place in places}) < len(places):
        return "give each subset a conditioning_data_dir of its own"
    return f"put each into a folder of its own, such as {root.name}/{places[0].name}"


def mask_of(
    image: Path, place: BucketFit, offset: Size, *, flipped: bool, masks: MaskFolder, alpha: bool
) -> np.ndarray | None:
    """The weights of one cut of an image, shape (h, w), or None where all of it is learned.

    A mask from the folder counts before the image's own transparency.
    """
    if path := masks.of(image):
        grey = open_upright(path)
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
    with opened(image) as file:
        if file.mode not in ("RGBA", "LA", "PA") and "transparency" not in file.info:
            return None
        turn = UPRIGHT.get(orientation_of(file))
        channel = file.convert("RGBA").getchannel("A")
    return channel if turn is None else channel.transpose(turn)


def _misshapen(images: Sequence[TrainImage], masks: MaskFolder) -> Iterator[str]:
    for image in images:
        if (path := masks.of(image.path)) is None:
            continue
        size = measure(path)
        if isinstance(size, str):
            yield f"{path.name} ({size})"
        elif abs(size[0] / size[1] * image.height / image.width - 1) > SAME_SHAPE:
            yield path.name


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
