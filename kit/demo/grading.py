"""How well a base, with or without a LoRA, draws the little world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kit.demo import checker
from kit.demo.scenes import BACKGROUNDS, PLACES, SIZE, SUBJECT, SUBJECT_SHAPE, Scene, scenes
from kit.settings.prompts import Prompt
from kit.training.sampling import SamplePipeline

BATCH = 40
SCALE, STEPS = 3.0, 20


@dataclass(frozen=True)
class Grade:
    """Pictures that were right, of how many."""

    right: int
    of: int
    pictures: tuple[Image.Image, ...] = ()

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.right / self.of

    def __str__(self) -> str:
        """As `37 of 40 (92 %)`."""
        return f"{self.right} of {self.of} ({self.share:.0%})"


def grade_vocabulary(pipeline: SamplePipeline, *, count: int = 200, seed: int = 0) -> Grade:
    """Scenes of the training vocabulary: colours, shape and background must all be right."""
    everything = list(scenes())
    rows = np.random.default_rng(seed).choice(len(everything), size=count, replace=False)
    chosen: list[Scene] = [everything[row] for row in rows]
    pictures = draw_all(pipeline, [scene.caption for scene in chosen], first_seed=seed * 10_000)
    right = sum(
        checker.look(picture).agrees(scene) for picture, scene in zip(pictures, chosen, strict=True)
    )
    return Grade(right, count, tuple(pictures))


def grade_subject(pipeline: SamplePipeline, *, count: int = 40, seed: int = 1) -> Grade:
    """The demo's subject on each of its backgrounds at every place."""
    places = [(background, place) for background in BACKGROUNDS for place in PLACES]
    prompts = [
        f"a {SUBJECT} {SUBJECT_SHAPE} on a {background} background, {place}"
        for background, place in (places[i % len(places)] for i in range(count))
    ]
    pictures = draw_all(pipeline, prompts, first_seed=seed * 10_000)
    right = sum(map(checker.shows_subject, pictures))
    return Grade(right, count, tuple(pictures))


def draw_all(
    pipeline: SamplePipeline,
    prompts: Sequence[str],
    *,
    first_seed: int,
    tell: Callable[[int], None] | None = None,
) -> list[Image.Image]:
    """Every prompt with its own seed, in batches; `tell` hears how many are done."""
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), BATCH):
        texts = prompts[start : start + BATCH]
        batch = [Prompt(text, scale=SCALE, steps=STEPS) for text in texts]
        seeds = [first_seed + start + i for i in range(len(texts))]
        pictures += pipeline.generate_batch(batch, size=(SIZE, SIZE), seeds=seeds)
        if tell:
            tell(len(pictures))
    return pictures
