"""Files to arrays: opened, turned upright, on white, scaled, cut, mirrored.

Shapes: H W of the picture, 3 colours; arrays are bytes (0 to 255).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kit.addresses import random_at
from kit.dataset.buckets import Fit, Size
from kit.errors import DatasetError

WHITE = (255, 255, 255)


def open_upright(path: Path) -> Image.Image:
    """The picture as seen: EXIF orientation applied, transparency composed on white, RGB.

    Raises: DatasetError where the file cannot be decoded.
    """
    try:
        with Image.open(path) as file:
            return _on_white(ImageOps.exif_transpose(file))
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(
            f"The image {path} cannot be read: {error}",
            "PNG, JPEG, WebP and BMP files can be read.",
            "Save it again with a picture editor, or move it out of the folder.",
        ) from error


def _on_white(image: Image.Image) -> Image.Image:
    """Hidden colours under transparent pixels are arbitrary, often black; white is what viewers show."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*WHITE, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


def cut_offset(place: Fit, *, seed: int, epoch: int, image: int, turn: int, random: bool) -> Size:
    """Left and top of the cut: the middle, or drawn for this use of the image."""
    across, down = place.overhang
    if not random:
        return across // 2, down // 2
    draw = random_at(seed, "crop", epoch, image, turn)
    return int(draw.integers(0, across + 1)), int(draw.integers(0, down + 1))


def is_flipped(*, seed: int, epoch: int, image: int, turn: int) -> bool:
    """Whether flip_aug mirrors this use of the image: half of them."""
    return bool(random_at(seed, "flip", epoch, image, turn).random() < 0.5)


def prepared(image: Image.Image, place: Fit, offset: Size, *, flipped: bool = False) -> np.ndarray:
    """Scale, cut at `offset` (left, top) and mirror: an array of shape (H, W, 3)."""
    pixels_HW3 = scaled(np.asarray(image), place.resized)
    (left, top), (width, height) = offset, place.bucket
    cut_HW3 = pixels_HW3[top : top + height, left : left + width]
    return np.array(cut_HW3[:, ::-1] if flipped else cut_HW3)  # our own, writable


def scaled(pixels_HW3: np.ndarray, size: Size) -> np.ndarray:
    """Scale to (width, height): averaged over areas when shrinking, Lanczos otherwise.

    The reference trainer uses OpenCV's INTER_AREA and Pillow's LANCZOS; ours equals them within one
    level of brightness.
    """
    height, width = pixels_HW3.shape[:2]
    if (width, height) == size:
        return pixels_HW3
    if width >= size[0] and height >= size[1]:
        return area_scaled(pixels_HW3, size)
    image = Image.fromarray(pixels_HW3).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image)


def area_scaled(pixels_HW3: np.ndarray, size: Size) -> np.ndarray:
    """Each new pixel is the mean of the area it covers, with fractions at the borders."""
    # Whole sums are exact in 64-bit integers; the first axis shrinks the picture for the second.
    rows = _area_means(pixels_HW3, size[1])
    return np.rint(_area_means(rows.swapaxes(0, 1), size[0]).swapaxes(0, 1)).astype(np.uint8)


def _area_means(values: np.ndarray, count: int) -> np.ndarray:
    """Means over `count` equal, possibly fractional stretches of the first axis."""
    length = len(values)
    kind = np.int64 if values.dtype == np.uint8 else np.float64
    sums = np.zeros((length + 1, *values.shape[1:]), dtype=kind)
    np.cumsum(values, axis=0, dtype=kind, out=sums[1:])
    edges = np.arange(count + 1) * (length / count)
    whole = np.minimum(edges.astype(int), length)
    fraction = (edges - whole).reshape(-1, *([1] * (values.ndim - 1)))
    up_to = sums[whole] + fraction * values[np.minimum(whole, length - 1)]
    means: np.ndarray = np.diff(up_to, axis=0) * (count / length)
    return means
