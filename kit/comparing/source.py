"""What is asked and drawn of each file: from a run's pictures, captions and prompts."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageOps

from kit.caching.inpaint_latents import InpaintLatents
from kit.caching.latents import OnTheFlyLatents
from kit.choosing.prompts import Concept, class_prompts, other_prompts, subject_prompts
from kit.comparing.drawing import Drawn
from kit.comparing.model import Model
from kit.dataset.captions import fullest_captions
from kit.dataset.pixels import open_upright
from kit.events import Event, Noticed
from kit.planning import Plan
from kit.settings.prompts import Prompt, parse_prompts
from kit.training.batches import BatchBuilder
from kit.training.caches import latent_encoder
from kit.training.class_word import LIKE
from kit.training.sampling import seeded
from kit.training.stills import Stills, make_stills
from kit.validation.questions import beside
from kit.validation.schedule import TRAINED, Schedule

ADDRESS = (0, "which file to keep")  # of the pictures' seeds
AT_ONCE, PIXELS_AT_ONCE = 32, 2 * 512 * 512  # without gradients, so it fits where a batch did


@dataclass(frozen=True)
class Asked:
    """The same for every file.

    known: training pictures, cut to the size that is drawn; of_class: prompts of the
    class word, which the bare base alone draws; rows: pictures at once.
    """

    drawn: Drawn
    known: tuple[Image.Image, ...]
    of_class: tuple[Prompt, ...]
    stills: Stills | None
    rows: int


@dataclass(frozen=True)
class Source:
    """A run's plan, beside its base model."""

    plan: Plan
    model: Model

    def asked(self, prompts: str, count: int) -> Generator[Event, None, Asked]:
        """What is asked, and what is missing; prompts: other ones, "" those of the run.

        Raises: SettingsError where a prompt cannot be read, DatasetError for a picture.
        """
        images, plan = self.plan.images, self.plan
        held = tuple(i for i, image in enumerate(images) if image.held_out)
        seed = plan.settings.validation.from_seed
        trained = beside(images, count=len(held) or TRAINED, seed=seed)
        known = (*held, *beside(images, count=TRAINED, seed=seed))
        captions = [self._caption(i) for i in (*held, *trained)]
        concepts = [Concept.of(f) for f in dict.fromkeys(i.folder for i in images if not i.is_reg)]
        drawn = parse_prompts(prompts) if prompts else plan.prompts
        others = other_prompts([prompt.text for prompt in drawn], concepts)
        classes = class_prompts(captions, concepts)
        around = others or classes
        yield from _missing(len(held), len({images[i].path for i in known}), bool(others), around)
        subject = subject_prompts(captions, count)
        like = drawn[0] if drawn else Prompt("")
        of_class = subject_prompts(classes or others, count)
        first = seeded(subject, like, plan.size, address=(*ADDRESS, "subject"))
        beside_it = subject_prompts(around or ("",), count)
        asked = Drawn(first, seeded(beside_it, like, plan.size, address=(*ADDRESS, "others")))
        return Asked(
            asked,
            tuple(self._known(image, _size(first[0])) for image in known),
            seeded(of_class, LIKE, plan.size, address=(*ADDRESS, "class")),
            self._stills(Schedule(held, trained, total=1)),
            self._rows(_size(first[0])),
        )

    def _caption(self, image: int) -> str:
        own = self.plan.settings_of(image).captions
        return fullest_captions(self.plan.images[image].caption, own)[0]

    def _known(self, image: int, size: tuple[int, int]) -> Image.Image:
        return ImageOps.fit(open_upright(self.plan.images[image].path), size)

    def _stills(self, asked: Schedule) -> Stills | None:
        """The pictures that losses are asked about, encoded, each with its own noise."""
        plan, model = self.plan, self.model
        inpaints = plan.settings.model.train_inpainting
        latents = (InpaintLatents if inpaints else OnTheFlyLatents)(
            latent_encoder(plan, model.family)
        )
        try:
            builder = BatchBuilder(replace(plan, validation=asked), model.text, latents, None)
            return make_stills(builder)
        finally:
            latents.close()

    def _rows(self, size: tuple[int, int]) -> int:
        """As many as were trained at once, or as the memory of so many pixels holds."""
        trained = max(part.batch_size for part in self.plan.layout.parts)
        return max(trained, min(AT_ONCE, PIXELS_AT_ONCE // max(1, size[0] * size[1])))


def _missing(
    held_out: int, pictures: int, are_named: bool, beside: Sequence[str]
) -> Generator[Event, None, None]:
    """are_named: somebody named other prompts; beside: what is drawn beside the subject."""
    if not held_out:
        yield Noticed(
            "no picture is held out, so how well it explains new pictures is not known "
            "(validation_count = 4 holds some out of the next run)"
        )
    if pictures == 1:
        yield Noticed(
            "there is one picture: likeness tells how near to that one is drawn, not to a subject"
        )
    if not are_named:
        what = "the class word is drawn" if beside else "a blank prompt is drawn"
        yield Noticed(
            f"no prompt without the subject is named, so {what} beside it; name what else it shall "
            "draw in sample_prompts (in a terminal: --prompts)"
        )


def _size(prompt: Prompt) -> tuple[int, int]:
    return prompt.width or 0, prompt.height or 0
