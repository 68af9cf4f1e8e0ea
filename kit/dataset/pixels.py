"""Files to arrays: opened, turned upright, on white, scaled, cut, mirrored.

Shapes: H W of the picture, 3 colours; arrays are bytes (0 to 255).
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

from kit.dataset.buckets import BucketFit, Size
from kit.dataset.files import MOST_PIXELS, READABLE, UNREADABLE, opened, orientation_of
from kit.errors import DatasetError, in_a_line
from kit.randomness import random_at

WHITE = (255, 255, 255)
LARGE = 50_000_000  # pixels; threads hold one such picture at a time, as each may take 3 GB
MOST_SUMS = 2_000_000  # pixels that are summed up at a time: 24 or 48 MB
_large_one = threading.Lock()
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def alone_if_large(pixels: int) -> AbstractContextManager[object]:
    """Held while a picture of so many pixels is opened and scaled: large ones wait for each other.

    The limit of the scan is a quarter of the free memory, for one picture.
    """
    return _large_one if pixels > LARGE else nullcontext()


def open_upright(path: Path, *, on_white: bool = True, about: int = 0) -> Image.Image:
    """The picture as seen: EXIF orientation applied, transparency composed on white, RGB.

    on_white: False keeps the colours that lie beneath the transparency, for a picture whose alpha
    is a mask: what it leaves out is still seen, and not learned.
    about: a side in pixels that is enough, for a thumbnail. A JPEG of 12 megapixels is then decoded
    at an eighth of its size, in a fifth of the time; 0 is the whole picture.

    Raises: DatasetError where the file cannot be decoded.
    """
    try:
        with opened(path) as file:
            _refuse_too_large(file)
            # Not ImageOps.exif_transpose: it also rewrites the EXIF data, and stumbles over
            # damaged ones.
            turn = UPRIGHT.get(orientation_of(file))
            if about:
                file.draft(None, (about, about))  # never smaller than that; JPEG alone heeds it
            image = _in_bytes(file)
            image = image if turn is None else image.transpose(turn)
            return _on_white(image) if on_white else image.convert("RGBA").convert("RGB")
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> DatasetError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return DatasetError(
            f"The image {path} is not there any more.",
            "It was when the images were looked for.",
            "Put it back, or look for the images anew: begin once more.",
        )
    if isinstance(error, OSError) and error.errno:  # of the storage; Pillow's own have no number
        return DatasetError(
            f"The image {path} cannot be read: {error.strerror}.",
            "The file itself may be sound: it is its storage that refuses.",
            "Check that you may read it and that its drive is connected, and begin once more.",
        )
    if isinstance(error, MemoryError):
        return DatasetError(
            f"The image {path} cannot be read: the memory is not enough for it.",
            do="Scale it down, or close what else uses the memory.",
        )
    return DatasetError(
        f"The image {path} cannot be read: {in_a_line(error)}",
        READABLE,
        "Save it again with a picture editor, or move it out of the folder.",
    )


def _refuse_too_large(image: Image.Image) -> None:
    """The scan leaves such pictures out; one may have been put in another's place since."""
    if (pixels := image.width * image.height) > MOST_PIXELS:
        raise ValueError(f"it has {pixels / 1e6:.0f} megapixels; the limit is 400")


def _in_bytes(image: Image.Image) -> Image.Image:
    """16-bit and floating-point grey to 8 bits.

    Pillow's own conversion cuts all but the darkest 1/256 of 16 bits to white, and makes a TIFF
    whose values reach from 0 to 1, as floating-point ones do, black.
    """
    if image.mode == "F" and (values := np.asarray(image)).max() <= 1:
        return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 0xFFFF) // 257).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    """Colours under transparent pixels are arbitrary, often black; viewers show white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*WHITE, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


def cut_offset(
    place: BucketFit, *, seed: int, epoch: int, image: int, turn: int, random: bool
) -> Size:
    """Left and top of the cut: the middle, or drawn for this use of the image."""
    across, down = place.overhang
    if not random:
        return across // 2, down // 2
    draw = random_at(seed, "crop", epoch, image, turn)
    return int(draw.integers(0, across + 1)), int(draw.integers(0, down + 1))


def is_flipped(*, seed: int, epoch: int, image: int, turn: int) -> bool:
    """Whether flip_aug mirrors this use of the image: half of them."""
    return bool(random_at(seed, "flip", epoch, image, turn).random() < 0.5)


def recolouring(*, seed: int, epoch: int, image: int, turn: int) -> tuple[float, float]:
    """Hue shift in degrees and gamma that color_aug gives this use: (0, 1) in two thirds of them.

    The reference's draw (behaviour 1.9); its gamma acts on 0 to 255 and so only brightens, ours on
    0 to 1, as gamma is meant.
    """
    random = random_at(seed, "colour", epoch, image, turn)
    if random.random() > 1 / 3:
        return 0.0, 1.0
    if random.random() < 0.5:
        return float(random.uniform(-16, 16)), 1.0
    return 0.0, float(random.uniform(0.95, 1.05))


def recoloured(pixels_HW3: np.ndarray, hue: float, gamma: float) -> np.ndarray:
    """Shift the hue by degrees, then raise the brightness, taken as 0 to 1, to a power."""
    if hue:
        turned = np.array(Image.fromarray(pixels_HW3).convert("HSV"))
        turned[..., 0] = (turned[..., 0].astype(int) + round(hue / 360 * 256)) % 256
        pixels_HW3 = np.asarray(Image.fromarray(turned, "HSV").convert("RGB"))
    if gamma != 1:
        pixels_HW3 = np.rint(255 * (pixels_HW3 / 255) ** gamma).astype(np.uint8)
    return pixels_HW3


def prepared(
    image: Image.Image, place: BucketFit, offset: Size, *, flipped: bool = False
) -> np.ndarray:
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
    # Whole sums of bytes are exact in 32 bits for sides up to 16 million pixels; the first axis
    # shrinks the picture for the second.
    rows = _area_means(pixels_HW3, size[1])
    means_HW3 = _area_means(rows.swapaxes(0, 1), size[0]).swapaxes(0, 1)
    levels_HW3: np.ndarray = np.rint(means_HW3).astype(np.uint8)
    return levels_HW3


def _area_means(values: np.ndarray, count: int) -> np.ndarray:
    """Means over `count` equal, possibly fractional stretches of the first axis.

    A few columns at a time: the sums of a picture of 200 megapixels would take 2.4 GB.
    """
    length, columns = values.shape[:2]
    edges = np.arange(count + 1) * (length / count)
    whole = np.minimum(edges.astype(int), length)
    fraction = (edges - whole).reshape(-1, *([1] * (values.ndim - 1)))
    last = np.minimum(whole, length - 1)
    means = np.empty((count, *values.shape[1:]))
    step = max(1, MOST_SUMS // (length + 1))
    for first in range(0, columns, step):
        part = values[:, first : first + step]
        kind = np.uint32 if values.dtype == np.uint8 else np.float64
        sums = np.zeros((length + 1, *part.shape[1:]), dtype=kind)
        np.cumsum(part, axis=0, dtype=kind, out=sums[1:])
        up_to = sums[whole] + fraction * part[last]
        means[:, first : first + step] = np.diff(up_to, axis=0) * (count / length)
    return means
