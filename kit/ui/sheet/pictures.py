"""What the contact sheet shows of a plan, and which of it: training images, a folder, findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from kit.dataset.buckets import BucketFit
from kit.dataset.caption_editing import Caption, captions_of
from kit.dataset.caption_tags import holds_word
from kit.dataset.captions import effective_captions
from kit.dataset.images import TrainImage
from kit.dataset.picture_findings import picture_findings
from kit.settings import Settings

FOUND, WITHOUT = "With findings", "Without a caption"
PASSING = (FOUND, WITHOUT)  # an edit may take a picture out of these


@dataclass(frozen=True)
class Pictures:
    """Images with their cuts; what is asked of their captions is found when it is first shown."""

    images: tuple[TrainImage, ...]
    fits: tuple[BucketFit, ...]
    ways: tuple[Settings, ...]  # by TrainImage.subset
    metadata: tuple[str, ...] = field(default=())  # the subsets' metadata files
    seed: int = 0

    @cached_property
    def captions(self) -> tuple[Caption, ...]:
        """Where each image's caption is kept."""
        return captions_of(self.images, self.ways, self.metadata)

    @cached_property
    def findings(self) -> tuple[tuple[str, ...], ...]:
        """Sentences about each image that is worth a look."""
        return picture_findings(self.images, self.fits, self.captions, self.ways)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each image is called: by its file alone where no other is called so."""
        return told_apart([image.path for image in self.images])

    @cached_property
    def folders(self) -> tuple[Path, ...]:
        """The folders in which captions are written."""
        places = (caption.file.parent for caption in self.captions if not caption.locked)
        return tuple(dict.fromkeys(places))

    @cached_property
    def choices(self) -> dict[str, tuple[int, ...]]:
        """What can be looked at, by its name in the menu; the training images come first."""
        return {name: tuple(numbers) for name, numbers in self._choices() if numbers}

    def _choices(self) -> Iterator[tuple[str, list[int]]]:
        every = range(len(self.images))
        training = [i for i in every if not self.images[i].is_reg]
        reg = [i for i in every if self.images[i].is_reg]
        yield ("Training pictures" if reg else "All pictures"), training
        yield "Regularisation pictures", reg
        yield FOUND, [i for i in every if self.findings[i]]
        yield WITHOUT, [i for i in every if not self.captions[i].is_written]
        places = dict.fromkeys(self.images[i].folder for i in training)
        for name in places if len(places) > 1 else ():
            yield f"Folder {name}", [i for i in training if self.images[i].folder == name]

    def numbers_of(self, paths: frozenset[Path]) -> tuple[int, ...]:
        """The images that lie there."""
        return tuple(i for i, image in enumerate(self.images) if image.path in paths)

    def trained_as(self, number: int) -> list[str]:
        """The texts that an image has in the first epochs; none where that is its caption."""
        image = self.images[number]
        captions = self.ways[image.subset].captions
        texts = effective_captions(image.caption, captions, seed=self.seed, image=number)
        first = image.caption.split("\n")[0]
        return [] if set(texts) == {first} else list(dict.fromkeys(texts))

    def trigger_advice(self, word: str) -> list[str]:
        """What the settings make of a trigger word in front of the captions."""
        told = []
        for way in dict.fromkeys(self.ways):
            captions = way.captions
            keeps = captions.keep_tokens or captions.keep_tokens_separator
            if captions.caption_prefix and holds_word(captions.caption_prefix, word):
                told.append("Caption prefix puts it in front of every caption already.")
            if captions.shuffle_caption and not keeps:
                told.append("Shuffle caption moves it about; Keep n tokens = 1 holds it in front.")
            elif captions.keep_tokens and not captions.keep_tokens_separator:
                told.append(
                    f"Keep n tokens = {captions.keep_tokens} counts it: the last tag that was kept "
                    "no longer is."
                )
        return list(dict.fromkeys(told))


def told_apart(paths: Sequence[Path]) -> tuple[str, ...]:
    """File names, with as many folders before those that are alike as tell them apart.

    A file that is there more than once, as in two data sets, is counted.
    """
    names, parts = [path.name for path in paths], 1
    longest = max((len(path.parts) for path in paths), default=0)
    while parts < longest and len(set(names)) < len(names):
        parts += 1
        counted = Counter(names)
        names = [
            Path(*path.parts[-parts:]).as_posix() if counted[name] > 1 else name
            for path, name in zip(paths, names, strict=True)
        ]
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        names[i] = f"{name} ({seen[name]})" if seen[name] > 1 else name
    return tuple(names)
