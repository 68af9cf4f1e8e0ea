"""What is worth a look at an image before it is trained: its caption, size, shape and doubles."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from textwrap import shorten

from kit.dataset.buckets import BucketFit
from kit.dataset.caption_editing import Caption
from kit.dataset.images import TrainImage
from kit.dataset.unread import Unread, unread
from kit.settings import Settings

SHOWN = 120  # letters of what is not read of a caption
BEFORE_MARK = re.compile(r" (?=[,.;:!?)])")  # a tokenizer's words stand apart
SMALL = 0.5  # of the resolution's pixels
WIDE = 2.5  # times as wide as high, or as high as wide
CUT = 0.15  # of the picture
COMPARED = 65_536  # bytes at either end; cameras do not write the same ones twice


def picture_findings(
    images: Sequence[TrainImage],
    fits: Sequence[BucketFit],
    captions: Sequence[Caption],
    ways: Sequence[Settings],
) -> tuple[tuple[str, ...], ...]:
    """A list of sentences for each image, empty where all is well.

    ways: the settings of each subset, or the run's alone.
    """
    shared, doubles = _shared_files(captions), _doubles(images)
    return tuple(
        tuple(
            (
                *_of_caption(caption),
                *_losses(unread(caption.text, ways[image.subset])),
                *_of_shape(image, place, ways[image.subset].images.size),
                *(f"shares its caption file with {name}" for name in shared.get(image.path, ())),
                *(f"the same picture as {name}" for name in doubles.get(image.path, ())),
            )
        )
        for image, place, caption in zip(images, fits, captions, strict=True)
    )


def _of_caption(caption: Caption) -> Iterator[str]:
    if not caption.text:
        yield "trains without any words"
    elif not caption.is_written:
        yield f"no caption: trains on “{caption.text}”"


def _losses(found: Unread) -> Iterator[str]:
    if found.is_cut:
        words = BEFORE_MARK.sub("", found.words).strip(" ,.;")
        words = shorten(words, SHOWN, placeholder=" ...")
        yield f"{found.tokens} tokens, {found.room} are read; not read: {words}"
    if found.lines:
        lines = "1 more line is" if found.lines == 1 else f"{found.lines} more lines are"
        yield f"{lines} not read"


def _of_shape(image: TrainImage, place: BucketFit, resolution: tuple[int, int]) -> Iterator[str]:
    width, height = image.width, image.height
    if width * height < SMALL * math.prod(resolution):
        grown = place.resized[0] / width
        how = f": enlarged {grown:.1f} times" if grown > 1 else ""
        yield f"small for {resolution[0]} x {resolution[1]}{how}"
    if max(width, height) > WIDE * min(width, height):
        shape = "wide" if width > height else "tall"
        yield f"very {shape}: {max(width, height) / min(width, height):.1f} to 1"
    if (share := cut_share(place)) >= CUT:
        yield f"{share:.0%} of it is cut away"


def cut_share(place: BucketFit) -> float:
    """The part of the scaled picture that lies outside of its bucket."""
    return 1 - math.prod(place.bucket) / math.prod(place.resized)


def _shared_files(captions: Sequence[Caption]) -> dict[Path, list[str]]:
    """For each image the others whose caption file is its own, such as 1.jpg and 1.png."""
    takers: dict[Path, list[Path]] = {}
    for caption in captions:
        if not caption.locked:
            takers.setdefault(caption.file, []).append(caption.image)
    return {
        path: [other.name for other in paths if other != path]
        for paths in takers.values()
        if len(paths) > 1
        for path in paths
    }


def _doubles(images: Sequence[TrainImage]) -> dict[Path, list[str]]:
    """For each image the others with the same content; only files of equal size are read."""
    sizes: dict[int, list[Path]] = {}
    for path in dict.fromkeys(image.path for image in images):
        sizes.setdefault(path.stat().st_size, []).append(path)
    alike: dict[str, list[Path]] = {}
    for size, paths in sizes.items():
        for path in paths if len(paths) > 1 else ():
            alike.setdefault(_ends(path, path.stat().st_mtime_ns, size), []).append(path)
    return {
        path: [_named(other, path) for other in paths if other != path]
        for paths in alike.values()
        for path in paths
    }


def _named(other: Path, beside: Path) -> str:
    same = other.parent == beside.parent
    return other.name if same else f"{other.parent.name}/{other.name}"


@lru_cache(maxsize=10_000)
def _ends(path: Path, _changed: int, size: int) -> str:
    """A hash of a file's first and last bytes, and of its size."""
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        found.update(file.read(COMPARED))
        file.seek(max(0, size - COMPARED))
        found.update(file.read(COMPARED))
    return found.hexdigest()
