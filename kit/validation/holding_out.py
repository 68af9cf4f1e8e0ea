"""Which pictures are held out of the training: a share or a count of every folder or subset.

A picture goes with all its repeats, and wherever else the same file is trained: what is measured on
it would tell nothing if the LoRA had learned it at another resolution.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from kit.dataset.images import TrainImage
from kit.errors import SettingsError
from kit.settings import Validation

Place = tuple[int, str]  # a subset's number and a folder's name


def hold_out(
    images: Sequence[TrainImage], ways: Sequence[Validation]
) -> tuple[tuple[TrainImage, ...], tuple[str, ...]]:
    """The same images with those that are held out marked and behind the others, and notices.

    ways: what counts for an image, by its subset. Behind the others, so that a training of what is
    left is the same as one of a folder that never held them.

    Raises: SettingsError where nothing is left to train.
    """
    if not any(way.holds_out for way in ways):
        return tuple(images), ()
    groups: dict[Place, list[TrainImage]] = {}
    for image in images:
        if not image.is_reg:
            groups.setdefault((image.subset, image.folder), []).append(image)
    files = {
        image.path
        for (subset, _), members in groups.items()
        for image in _drawn(members, ways[subset])
    }
    held = [i for i in images if i.path in files and not i.is_reg]
    kept = [i for i in images if i.is_reg or i.path not in files]
    _require_training(groups, kept)
    marked = tuple(replace(image, held_out=True) for image in held)
    return (*kept, *marked), tuple(_told(groups, ways, marked))


def kept_of(count: int, way: Validation) -> int:
    """How many of so many pictures are trained: all but the count, or ceil(n (1 - split)).

    Rounded first: 10 x (1 - 0.7) is 3.0000000000000004 in binary.
    """
    if way.validation_count:
        return max(0, count - way.validation_count)
    return math.ceil(round(count * (1 - way.validation_split), 9))


def _drawn(members: Sequence[TrainImage], way: Validation) -> Sequence[TrainImage]:
    """Those of a folder that are held out: the end of its files in Python's shuffled order.

    sd-scripts draws so too: the same seed and the same files give the same pictures.
    """
    order = list(members)
    random.Random(way.from_seed).shuffle(order)
    return order[kept_of(len(order), way) :]


def _require_training(
    groups: Mapping[Place, Sequence[TrainImage]], kept: Sequence[TrainImage]
) -> None:
    left = {(image.subset, image.folder) for image in kept if not image.is_reg}
    for place, members in groups.items():
        if place not in left:
            most = len(members) - 1
            do = f"hold out at most {most} of them" if most else "put more pictures there"
            raise SettingsError(
                [
                    f"[validation] validation_count: nothing would be left to train of {place[1]}, "
                    f"which has {_counted(len(members))}; {do}, or none (0)"
                ]
            )


def _told(
    groups: Mapping[Place, Sequence[TrainImage]],
    ways: Sequence[Validation],
    held: Sequence[TrainImage],
) -> Iterator[str]:
    if not held:
        shares = {way.validation_split for way in ways if way.holds_out}
        share = ", ".join(f"{share:g}" for share in sorted(shares))
        sizes = ", ".join(_counted(len(members)) for members in list(groups.values())[:5])
        yield (
            f"validation_split = {share} holds out no picture of folders with {sizes}, so nothing "
            "is validated; set validation_count = 2, or a larger share"
        )
    elif len(held) == 1:
        yield (
            f"{held[0].path.name} alone is held out: its loss says more about that picture than "
            "about the LoRA, and memorising cannot be told; set validation_count = 2 or more"
        )


def _counted(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"
