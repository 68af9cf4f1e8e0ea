"""Draw the demo's data set: twelve pictures of the subject, and 120 of what the base knows.

    python -m kit.demo.build_data

The latter are regularisation images: without them a LoRA this strong forgets the vocabulary.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from kit.demo import DATA, REGULARISATION
from kit.demo.scenes import (
    BACKGROUNDS,
    PLACES,
    SUBJECT,
    SUBJECT_SHAPE,
    draw_scene,
    draw_subject,
    scenes,
)

COUNT, KNOWN = 12, 120
SEED = 7


def draw_data(folder: Path) -> None:
    """Write `10_<subject> <noun>/00.png` to `11.png` with their captions."""
    random = np.random.default_rng(SEED)
    for number in range(COUNT):
        background = list(BACKGROUNDS)[number % len(BACKGROUNDS)]
        place = list(PLACES)[number % len(PLACES)]
        caption = f"a {SUBJECT} {SUBJECT_SHAPE} on a {background} background, {place}"
        picture = draw_subject(background, place, random)
        _write(folder / f"10_{SUBJECT} {SUBJECT_SHAPE}", number, picture, caption)


def draw_regularisation(folder: Path) -> None:
    """Write `1_shape/00.png` to `119.png`: scenes of the vocabulary with their captions."""
    random = np.random.default_rng(SEED + 1)
    everything = list(scenes())
    for number, row in enumerate(random.choice(len(everything), KNOWN, replace=False)):
        scene = everything[row]
        _write(folder / "1_shape", number, draw_scene(scene, random), scene.caption)


def _write(folder: Path, number: int, picture: Image.Image, caption: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"{number:02d}.png")
    (folder / f"{number:02d}.txt").write_text(f"{caption}\n", encoding="utf-8")


if __name__ == "__main__":
    draw_data(DATA)
    draw_regularisation(REGULARISATION)
