"""What the bare base model draws itself, to be asked about: the training captions without the word.

It explains its own pictures well. How much worse the LoRA does tells what the class word has come
to mean with it, without any picture being held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kit.choosing.prompts import Concept, class_prompts, subject_prompts
from kit.dataset.captions import fullest_captions
from kit.dataset.images import TrainImage
from kit.settings import Captions

DRAWN = 4  # pictures
STEPS = 12  # of the sampler for each; rough pictures are enough to be asked about
# Without guidance, as the base itself holds it likely: on the embedded base its loss on its own was
# 0.023 so, 0.026 at a scale of 3, and 0.17 at 7.5; on training pictures 0.023.
SCALE = 1.0
FORWARDS = STEPS * DRAWN  # ways that drawing takes


def class_captions(
    images: Sequence[TrainImage], chosen: Iterable[int], captions: Sequence[Captions]
) -> tuple[str, ...]:
    """DRAWN captions of these images (by index) without the subjects' words; () for none.

    captions: how they are read, by an image's subset; without, nothing is drawn.
    """
    if not captions:
        return ()
    folders = dict.fromkeys(image.folder for image in images if not image.is_reg)
    read = (fullest_captions(images[i].caption, captions[images[i].subset])[0] for i in chosen)
    return subject_prompts(class_prompts(read, [Concept.of(folder) for folder in folders]), DRAWN)
