"""What the LoRA is asked about a picture: to tell noise from picture, at noise levels of its own.

The timesteps are stratified: the trained range is cut into as many equal parts as there are
questions, and each has one timestep, drawn once for the picture. So is the noise: what changes
between two validations is the LoRA alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kit.dataset.images import TrainImage
from kit.randomness import random_at, seed_for

EACH = 8  # questions about a picture, two for each band of noise
BANDS, TIMESTEPS = 4, 1000  # as kit.diffusion.losses and kit.diffusion.noise have them


@dataclass(frozen=True)
class Question:
    """One picture at one timestep."""

    image: int  # by its index among the plan's
    t: int
    number: int  # stands for its noise, in the address of every draw

    @property
    def band(self) -> int:
        """The quarter of the timesteps, from the cleanest."""
        return self.t * BANDS // TIMESTEPS


def questions(
    images: Sequence[TrainImage],
    asked: Iterable[int],
    *,
    seed: int,
    least: int = 0,
    end: int = TIMESTEPS,
    most: int = 0,
) -> tuple[Question, ...]:
    """EACH questions about every image that is asked about, or the first `most` of them.

    images: all; asked: by index; least, end: the timesteps that are trained, the end left out.
    They come in rounds of one question about each picture, of neighbouring parts of the range: cut
    off anywhere, they still spread over all of it.
    """
    chosen = list(asked)
    found = [
        _question(images[image], image, (turn + place) % EACH, seed, least, end)
        for turn in range(EACH)
        for place, image in enumerate(chosen)
    ]
    return tuple(found[:most] if most else found)


def beside(images: Sequence[TrainImage], *, count: int, seed: int) -> tuple[int, ...]:
    """So many training pictures, by index, always the same: to hold the held-out ones against."""
    learned = [i for i, image in enumerate(images) if not image.is_reg and not image.held_out]
    order = random_at(seed, "pictures beside the held-out ones").permutation(len(learned))
    return tuple(sorted(learned[i] for i in order[:count]))


def _question(
    picture: TrainImage, image: int, part: int, seed: int, least: int, end: int
) -> Question:
    """The question of one part of the range; by the file's name, whatever else lies beside it."""
    address = (seed, "validation", picture.subset, picture.folder, picture.path.name, part)
    place = (part + random_at(*address, "t").random()) / EACH
    return Question(image, least + int(place * (end - least)), seed_for(*address))
