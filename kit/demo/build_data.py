"""Draw the demo's data set: twelve pictures of the subject, each with its caption.

python -m kit.demo.build_data [FOLDER]
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

from kit.demo import DATA
from kit.demo.scenes import BACKGROUNDS, PLACES, SUBJECT, draw_subject

COUNT, SEED, REPEATS = 12, 7, 10


def main(folder: Path) -> None:
    """Write `<repeats>_<subject> ball/00.png` to `11.png` with their captions."""
    random = np.random.default_rng(SEED)
    concept = folder / f"{REPEATS}_{SUBJECT} ball"
    concept.mkdir(parents=True, exist_ok=True)
    everything = list(itertools.product(BACKGROUNDS, PLACES))
    # Three of each background, so that a background alone tells nothing about the subject.
    chosen = [everything[(i % 4) * 5 + (i * 2) % 5] for i in range(COUNT)]
    for number, (background, place) in enumerate(chosen):
        draw_subject(background, place, random).save(concept / f"{number:02d}.png")
        caption = f"a {SUBJECT} ball on a {background} background, {place}\n"
        (concept / f"{number:02d}.txt").write_text(caption, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
