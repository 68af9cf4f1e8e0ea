"""A ruler for the little world: reads colours, shape, background and place from the pixels.

Rules only, no learned part: the background is the median of the border, the object is what differs
from it, its shape is the silhouette it overlaps best, its colour the nearest of the palette, and a
disc in its middle that differs from its outside is a core, unless the background shows through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from kit.demo.scenes import (
    BACKGROUNDS,
    COLOURS,
    CORED_SHAPES,
    PLACES,
    SHAPES,
    SIZE,
    SUBJECT_COLOUR,
    SUBJECT_CORE,
    SUBJECT_SHAPE,
    Colour,
    Scene,
    crop_to_ink,
    shape_mask,
)

CONTRAST = 55  # RGB distance from the background at which a pixel belongs to the object
LEAST_PIXELS = 120  # smaller than any shape of the vocabulary (a small ring has about 400)
LEAST_OVERLAP = 0.72  # intersection over union with the silhouette; other shapes reach 0.6
SIDE = 48  # silhouettes are compared at this size
MIDDLE, OUTSIDE = 0.35, (0.7, 0.95)  # where core and outside are read, in radii of the object


@dataclass(frozen=True)
class Seen:
    """What the checker read; a word is empty where it saw nothing clear."""

    colour: str = ""
    shape: str = ""
    background: str = ""
    place: str = ""
    core: str = ""
    overlap: float = 0.0

    def agrees(self, scene: Scene) -> bool:
        """Colour, core, shape and background are those of the scene."""
        return (self.colour, self.core, self.shape, self.background) == (
            scene.colour,
            scene.core,
            scene.shape,
            scene.background,
        )

    @property
    def is_subject(self) -> bool:
        """It is the demo's subject."""
        return (self.colour, self.core, self.shape) == (
            SUBJECT_COLOUR,
            SUBJECT_CORE,
            SUBJECT_SHAPE,
        )


def look(picture: Image.Image) -> Seen:
    """Read one picture of 64 x 64 pixels."""
    pixels_HW3 = np.asarray(picture.convert("RGB"), dtype=np.float64)
    ground, mask_HW = _object(pixels_HW3)
    background = _nearest(ground, BACKGROUNDS)
    if mask_HW.sum() < LEAST_PIXELS:
        return Seen(background=background)
    shape, overlap = _best_shape(mask_HW)
    colour, core = _colours(pixels_HW3, mask_HW, shape, ground)
    clear = shape if overlap >= LEAST_OVERLAP else ""
    return Seen(colour, clear, background, _place(mask_HW), core, overlap)


def shows_subject(picture: Image.Image) -> bool:
    """The demo's subject: a ball that is blue outside and red inside."""
    return look(picture).is_subject


def _colours(
    pixels_HW3: np.ndarray, mask_HW: np.ndarray, shape: str, ground: np.ndarray
) -> tuple[str, str]:
    """The object's colour, and its core's where it has one ("" elsewhere, "hole" for a hole)."""
    if shape not in CORED_SHAPES:
        return _nearest(np.median(pixels_HW3[_core(mask_HW)], axis=0), COLOURS), ""
    distance_HW = _distance_from_middle(mask_HW)
    outside = mask_HW & (distance_HW > OUTSIDE[0]) & (distance_HW < OUTSIDE[1])
    colour = _nearest(np.median(pixels_HW3[outside], axis=0), COLOURS) if outside.any() else ""
    red, green, blue = (int(channel) for channel in ground)
    palette = {**COLOURS, "hole": (red, green, blue)}
    core = _nearest(np.median(pixels_HW3[distance_HW < MIDDLE], axis=0), palette)
    return colour, "" if core == colour else core


def _distance_from_middle(mask_HW: np.ndarray) -> np.ndarray:
    """Each pixel's distance from the middle of the mask's box, in half-widths of the box."""
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    down = (y - (rows[0] + rows[-1]) / 2) / ((rows[-1] - rows[0] + 1) / 2)
    across = (x - (columns[0] + columns[-1]) / 2) / ((columns[-1] - columns[0] + 1) / 2)
    return np.hypot(down, across)


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
