"""A ruler for the little world: reads colour, shape, background and place from the pixels.

Rules only, no learned part: the background is the median of the border, the object is what differs
from
it, its shape is the silhouette it overlaps best, its colour the nearest of the palette.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from kit.demo.scenes import (
    BACKGROUNDS,
    COLOURS,
    PLACES,
    SHAPES,
    SIZE,
    SUBJECT_COLOURS,
    Colour,
    Scene,
    crop_to_ink,
    shape_mask,
)

CONTRAST = 55  # RGB distance from the background at which a pixel belongs to the object
LEAST_PIXELS = 120  # smaller than any shape of the vocabulary (a small ring has about 400)
LEAST_OVERLAP = 0.72  # intersection over union with the silhouette; other shapes reach 0.6
SIDE = 48  # silhouettes are compared at this size


@dataclass(frozen=True)
class Seen:
    """What the checker read; a word is empty where it saw nothing clear."""

    colour: str = ""
    shape: str = ""
    background: str = ""
    place: str = ""
    overlap: float = 0.0

    def agrees(self, scene: Scene) -> bool:
        """Colour, shape and background are those of the scene."""
        return (self.colour, self.shape, self.background) == (
            scene.colour,
            scene.shape,
            scene.background,
        )


def look(picture: Image.Image) -> Seen:
    """Read one picture of 64 x 64 pixels."""
    pixels_HW3 = np.asarray(picture.convert("RGB"), dtype=np.float64)
    ground, mask_HW = _object(pixels_HW3)
    background = _nearest(ground, BACKGROUNDS)
    if mask_HW.sum() < LEAST_PIXELS:
        return Seen(background=background)
    shape, overlap = _best_shape(mask_HW)
    colour = _nearest(np.median(pixels_HW3[_core(mask_HW)], axis=0), COLOURS)
    return Seen(
        colour, shape if overlap >= LEAST_OVERLAP else "", background, _place(mask_HW), overlap
    )


def shows_subject(picture: Image.Image) -> bool:
    """The demo's subject: a ball that is blue outside and red inside."""
    pixels_HW3 = np.asarray(picture.convert("RGB"), dtype=np.float64)
    ground, mask_HW = _object(pixels_HW3)
    if mask_HW.sum() < LEAST_PIXELS:
        return False
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    hull_HW = _filled(mask_HW)
    is_round = 0.75 < width / height < 1.34 and _overlap(hull_HW, "ball") >= LEAST_OVERLAP
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    down = (y - (rows[0] + rows[-1]) / 2) / (height / 2)
    across = (x - (columns[0] + columns[-1]) / 2) / (width / 2)
    distance_HW = np.hypot(down, across)  # from the ball's middle, in its radii
    core = np.median(pixels_HW3[distance_HW < 0.35], axis=0)
    outside = np.median(pixels_HW3[(distance_HW > 0.7) & (distance_HW < 0.95)], axis=0)
    red, green, blue = (int(channel) for channel in ground)
    core_palette = {**COLOURS, "ground": (red, green, blue)}  # a hole is no core
    return (
        is_round
        and _nearest(core, core_palette) == SUBJECT_COLOURS["core"]
        and _nearest(outside, COLOURS) == SUBJECT_COLOURS["outside"]
    )


def _filled(mask_HW: np.ndarray) -> np.ndarray:
    """The silhouette without holes: what lies between its first and last pixel of each column."""
    down = np.maximum.accumulate(mask_HW, axis=0)
    up = np.maximum.accumulate(mask_HW[::-1], axis=0)[::-1]
    return down & up


def _object(pixels_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The background's colour, and the largest connected region that differs from it."""
    edges = (pixels_HW3[:2], pixels_HW3[-2:], pixels_HW3[:, :2], pixels_HW3[:, -2:])
    ground = np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]), axis=0)
    differs_HW = np.linalg.norm(pixels_HW3 - ground, axis=-1) > CONTRAST
    return ground, _without_specks(differs_HW)


def _without_specks(mask_HW: np.ndarray) -> np.ndarray:
    """Keep pixels that have at least five of nine neighbours (themselves included) in the mask."""
    padded = np.pad(mask_HW, 1).astype(int)
    rows, columns = mask_HW.shape
    neighbours = sum(
        padded[down : down + rows, across : across + columns]
        for down in range(3)
        for across in range(3)
    )
    return mask_HW & (np.asarray(neighbours) >= 5)


def _core(mask_HW: np.ndarray) -> np.ndarray:
    """The mask without its soft edge; the mask itself where nothing would remain."""
    padded = np.pad(mask_HW, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & mask_HW
    return inner if inner.any() else mask_HW


def _best_shape(mask_HW: np.ndarray) -> tuple[str, float]:
    overlaps = {shape: _overlap(mask_HW, shape) for shape in SHAPES}
    best = max(overlaps, key=lambda shape: overlaps[shape])
    return best, overlaps[best]


def _overlap(mask_HW: np.ndarray, shape: str) -> float:
    """Intersection over union of the two silhouettes, both stretched to the same square."""
    mine, ideal = crop_to_ink(mask_HW, SIDE), _ideal(shape)
    return float((mine & ideal).sum() / max(1, (mine | ideal).sum()))


@cache
def _ideal(shape: str) -> np.ndarray:
    return shape_mask(shape, SIDE)


def _place(mask_HW: np.ndarray) -> str:
    rows, columns = np.nonzero(mask_HW)
    # The middle of the bounding box, not the centroid: a triangle's centroid lies low.
    x = (columns.min() + columns.max() + 1) / 2 - SIZE / 2
    y = (rows.min() + rows.max() + 1) / 2 - SIZE / 2
    return min(PLACES, key=lambda place: (x - PLACES[place][0]) ** 2 + (y - PLACES[place][1]) ** 2)


def _nearest(colour: np.ndarray, palette: dict[str, Colour]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(colour - np.array(palette[name]))))
