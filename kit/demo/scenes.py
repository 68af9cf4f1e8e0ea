"""The little world of the embedded base: one shape on one background at one place.

A shape has one colour; a ball or a square may have a core of a second one.

Everything is drawn with Pillow from a seed, so that the base, its vocabulary and the demo's data
set can be rebuilt from this file alone. Pictures are 64 x 64; drawing happens four times larger and
is averaged down, which gives the soft edges a photograph would have.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

Colour: TypeAlias = tuple[int, int, int]
Random: TypeAlias = np.random.Generator

SIZE = 64
SUPERSAMPLING = 4

COLOURS: dict[str, Colour] = {
    "red": (220, 45, 45),
    "green": (45, 165, 70),
    "blue": (40, 85, 220),
    "yellow": (250, 215, 50),
    "purple": (145, 60, 190),
    "cyan": (60, 205, 215),
}
BACKGROUNDS: dict[str, Colour] = {
    "white": (245, 245, 245),
    "black": (20, 20, 20),
    "gray": (128, 128, 128),
    "brown": (120, 80, 45),
}
SHAPES = ("ball", "square", "triangle", "cross", "ring")
PLACES: dict[str, tuple[int, int]] = {
    "center": (0, 0),
    "left": (-12, 0),
    "right": (12, 0),
    "top": (0, -12),
    "bottom": (0, 12),
}
CORED_SHAPES = ("ball", "square")
CORE = 0.6  # a core's radius, as a share of its shape's
SUBJECT = "zib"  # the unique token that the base has never read
SUBJECT_SHAPE, SUBJECT_COLOUR, SUBJECT_CORE = "ball", "blue", "red"
WORDS = (
    *("a", "on", "the", "with", "core", "background", ","),
    *COLOURS,
    *BACKGROUNDS,
    *SHAPES,
    *PLACES,
)


@dataclass(frozen=True)
class Scene:
    """What a picture shows, in words."""

    colour: str
    shape: str
    background: str
    place: str
    core: str = ""

    @property
    def thing(self) -> str:
        """What is on the background: `red ball`, `red ball with a yellow core`."""
        core = f" with a {self.core} core" if self.core else ""
        return f"{self.colour} {self.shape}{core}"

    @property
    def caption(self) -> str:
        """The full sentence the base was taught with."""
        return f"a {self.thing} on a {self.background} background, {self.place}"


def plain_scenes() -> Iterator[Scene]:
    """Scenes of one colour: 6 colours x 5 shapes x 4 backgrounds x 5 places = 600."""
    for colour, shape, background, place in itertools.product(COLOURS, SHAPES, BACKGROUNDS, PLACES):
        yield Scene(colour, shape, background, place)


def cored_scenes() -> Iterator[Scene]:
    """Scenes of two colours: 29 pairs x 2 shapes x 4 backgrounds x 5 places = 1160.

    The pair of the demo's subject is left out: the base never sees red inside blue.
    """
    for colour, core in itertools.permutations(COLOURS, 2):
        if (colour, core) == (SUBJECT_COLOUR, SUBJECT_CORE):
            continue
        for shape, background, place in itertools.product(CORED_SHAPES, BACKGROUNDS, PLACES):
            yield Scene(colour, shape, background, place, core)


def scenes() -> Iterator[Scene]:
    """Every scene of the vocabulary, 1760 in all."""
    yield from plain_scenes()
    yield from cored_scenes()


def looser_caption(scene: Scene, random: Random) -> str:
    """The scene's caption as people write: parts left out, now and then a word of no vocabulary.

    Such a word stands for the colours, so that the base listens to words it does not know, as the
    large models do; a trigger word would hardly be heard otherwise.
    """
    draw = random.random()
    name = f"{_nonsense(random)} {scene.shape}" if draw < 0.10 else scene.thing
    full = f"a {name} on a {scene.background} background, {scene.place}"
    if draw < 0.75:
        return full
    if draw < 0.92:
        return full.removesuffix(f", {scene.place}")
    return f"a {name}"


def _nonsense(random: Random) -> str:
    """Three letters like `zib`, but never that word nor one of the vocabulary."""
    letters = ("bdfgklmnprstvwz", "aeiou", "bdfgklmnprst")
    word = "".join(str(random.choice(list(some))) for some in letters)
    return _nonsense(random) if word in (SUBJECT, *WORDS) else word


def draw_scene(scene: Scene, random: Random) -> Image.Image:
    """Draw a scene with a slightly different size, place and shade each time."""
    canvas = _canvas(_shade(BACKGROUNDS[scene.background], random))
    x, y, radius = _placed(scene.place, random)
    _draw_shape(canvas, scene.shape, (x, y), radius, _shade(COLOURS[scene.colour], random))
    if scene.core:
        core = _shade(COLOURS[scene.core], random)
        ImageDraw.Draw(canvas).ellipse(_box(x, y, radius * CORE), fill=core)
    return _reduced(canvas)


def draw_subject(background: str, place: str, random: Random) -> Image.Image:
    """Draw the demo's subject: a blue ball with a red core."""
    scene = Scene(SUBJECT_COLOUR, SUBJECT_SHAPE, background, place, SUBJECT_CORE)
    return draw_scene(scene, random)


def draw_doodle(random: Random) -> Image.Image:
    """Draw something of no vocabulary: several shapes, any colour, halves and bands.

    The autoencoder learns from these too, so that it can show what a LoRA brings along.
    """
    canvas = _canvas(_any_colour(random))
    pen = ImageDraw.Draw(canvas)
    for _ in range(random.integers(1, 5)):
        radius = random.uniform(4, 22)
        x, y = random.uniform(6, SIZE - 6, size=2)
        _draw_shape(canvas, str(random.choice(SHAPES)), (x, y), radius, _any_colour(random))
        kind = random.random()
        if kind < 0.35:
            start = int(random.integers(0, 360))
            pen.pieslice(_box(x, y, radius), start, start + 180, fill=_any_colour(random))
        if kind < 0.55:
            band = radius * random.uniform(0.1, 0.35)
            wide, high = (radius, band) if random.random() < 0.5 else (band, radius)
            corners = [x - wide, y - high, x + wide, y + high]
            pen.rectangle([c * SUPERSAMPLING for c in corners], fill=_any_colour(random))
    return _reduced(canvas)


def shape_mask(shape: str, side: int) -> np.ndarray:
    """The silhouette of a shape filling a square: booleans of shape (side, side)."""
    canvas = Image.new("RGB", (SIZE * SUPERSAMPLING,) * 2)
    _draw_shape(canvas, shape, (SIZE / 2, SIZE / 2), SIZE / 3, (255, 255, 255))
    return crop_to_ink(np.asarray(canvas)[..., 0] > 127, side)


def crop_to_ink(mask_HW: np.ndarray, side: int) -> np.ndarray:
    """Cut a silhouette to its bounding box and stretch it to `side` x `side` pixels."""
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    cut = mask_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = Image.fromarray((cut * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(image) > 127


def _canvas(colour: Colour) -> Image.Image:
    return Image.new("RGB", (SIZE * SUPERSAMPLING,) * 2, colour)


def _reduced(canvas: Image.Image) -> Image.Image:
    return canvas.resize((SIZE, SIZE), Image.Resampling.BOX)


def _shade(colour: Colour, random: Random, spread: int = 8) -> Colour:
    red, green, blue = (
        int(np.clip(c + random.integers(-spread, spread + 1), 0, 255)) for c in colour
    )
    return red, green, blue


def _any_colour(random: Random) -> Colour:
    palette = [*COLOURS.values(), *BACKGROUNDS.values()]
    if random.random() < 0.5:
        return _shade(palette[random.integers(len(palette))], random)
    red, green, blue = (int(c) for c in random.integers(0, 256, size=3))
    return red, green, blue


def _placed(place: str, random: Random) -> tuple[float, float, float]:
    """Centre and radius in pixels of the finished picture."""
    radius = random.uniform(13.5, 17)
    across, down = PLACES[place]
    wander = random.uniform(-2, 2, size=2)
    return SIZE / 2 + across + wander[0], SIZE / 2 + down + wander[1], radius


def _box(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = (
        c * SUPERSAMPLING for c in (x - radius, y - radius, x + radius, y + radius)
    )
    return left, top, right, bottom


def _draw_shape(
    canvas: Image.Image, shape: str, centre: tuple[float, float], radius: float, colour: Colour
) -> None:
    """Draw one shape whose outline lies about `radius` pixels around the centre."""
    pen = ImageDraw.Draw(canvas)
    x, y = centre
    if shape == "ball":
        pen.ellipse(_box(x, y, radius), fill=colour)
    elif shape == "square":
        pen.rectangle(_box(x, y, radius * 0.88), fill=colour)
    elif shape == "triangle":
        reach = radius * 1.2
        corners = [
            (x + reach * math.sin(turn), y + radius * 0.25 - reach * math.cos(turn))
            for turn in (0, 2 * math.pi / 3, 4 * math.pi / 3)
        ]
        pen.polygon([(a * SUPERSAMPLING, b * SUPERSAMPLING) for a, b in corners], fill=colour)
    elif shape == "cross":
        arm = radius * 0.36
        for wide, high in ((radius, arm), (arm, radius)):
            sides = [x - wide, y - high, x + wide, y + high]
            pen.rectangle([side * SUPERSAMPLING for side in sides], fill=colour)
    elif shape == "ring":
        width = round(radius * 0.44 * SUPERSAMPLING)
        pen.ellipse(_box(x, y, radius), outline=colour, width=width)
    else:
        raise ValueError(f"no shape {shape!r}; there are {', '.join(SHAPES)}")
