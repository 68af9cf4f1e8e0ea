"""Pictures that are drawn to compare files: the same prompts with the same seeds for each."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from PIL import Image

from kit.settings.prompts import Prompt
from kit.training.sampling import SamplePipeline


@dataclass(frozen=True)
class Drawn:
    """What is drawn of each file: the subject, and the same without it.

    Each prompt has its own seed; the places of `subject` and `others` are the same in every file.
    """

    subject: tuple[Prompt, ...] = ()
    others: tuple[Prompt, ...] = ()

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """All of them."""
        return (*self.subject, *self.others)


@dataclass(frozen=True)
class Pictures:
    """What a file drew, in the order of the prompts."""

    subject: tuple[Image.Image, ...] = field(default=(), repr=False)
    others: tuple[Image.Image, ...] = field(default=(), repr=False)


def draw(pipeline: SamplePipeline, asked: Drawn, *, rows: int) -> Generator[int, None, Pictures]:
    """Every prompt, `rows` at once; tells after each batch how many pictures it was."""
    pictures: list[Image.Image] = []
    prompts = asked.prompts
    for first in range(0, len(prompts), rows):
        batch = list(prompts[first : first + rows])
        size = batch[0].width or 0, batch[0].height or 0
        seeds = [prompt.seed or 0 for prompt in batch]
        pictures += pipeline.generate_batch(batch, size=size, seeds=seeds)
        yield len(batch)
    count = len(asked.subject)
    return Pictures(tuple(pictures[:count]), tuple(pictures[count:]))
