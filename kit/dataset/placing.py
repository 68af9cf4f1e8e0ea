"""Placing: which folder of a data set each incoming file goes to, and under which name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from kit.catalog import CAPTION_EXTENSIONS
from kit.dataset.data_sets import PICTURES, Words, concepts, is_concept
from kit.dataset.files import READABLE
from kit.dataset.incoming import Incoming, safe_name
from kit.errors import DatasetError

NAMED = 3
# The folder inside the data set and the stem: a picture with its captions.
Group: TypeAlias = tuple[tuple[str, ...], str]


@dataclass
class Placement:
    """Where each file goes, and what is left out.

    arranged: the folder for pictures that had none of their own, if there are such.
    """

    groups: dict[Group, list[tuple[str, Incoming]]] = field(default_factory=dict)
    arranged: str = ""
    left_out: list[str] = field(default_factory=list)

    @property
    def endings(self) -> list[str]:
        """Of every file that is placed, in lower case."""
        return [ending for files in self.groups.values() for ending, _ in files]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for files in self.groups.values() for _, file in files)


def placed(files: list[Incoming], words: Words, into: Path | None) -> Placement:
    """Decide on every file's folder and name; into: a data set that is there, and gets them.

    Raises: DatasetError where no picture came, or <repeats>_<word> folders of several places.
    """
    placement = Placement()
    depth = _depth_of_concepts(files)
    home = _home(words, into)
    stems: dict[Group, Group] = {}  # where a picture's group went
    times: dict[tuple[tuple[str, ...], str], int] = {}
    for file in sorted(files, key=lambda each: _ending(each) not in PICTURES):
        ending, folders = _ending(file), file.parts[:-1]
        stem = file.parts[-1][: len(file.parts[-1]) - len(ending)]
        # Telephones send several pictures under one name.
        nth = times[folders, stem + ending] = times.get((folders, stem + ending), 0) + 1
        key: Group = (folders, stem if nth == 1 else f"{stem} ({nth})")
        is_kept = len(folders) > depth and is_concept(folders[depth])
        inside = folders[depth:] if is_kept else (home,)
        if ending in PICTURES:
            stems.setdefault(key, _free(placement.groups, inside, key))
            placement.arranged = placement.arranged if is_kept else home
        elif ending in CAPTION_EXTENSIONS and into is not None:
            stems.setdefault(key, (inside, stem))  # of a picture that may be there
        elif ending not in CAPTION_EXTENSIONS or key not in stems:
            placement.left_out.append(file.parts[-1])
            continue
        placement.groups.setdefault(stems[key], []).append((ending, file))
    if not placement.groups:
        raise _no_picture(placement.left_out)
    return placement


def _ending(file: Incoming) -> str:
    return Path(file.parts[-1]).suffix.lower()


def _depth_of_concepts(files: list[Incoming]) -> int:
    """How many folders lie above the <repeats>_<word> folders."""
    above = set()
    for file in files:
        depths = [i for i, part in enumerate(file.parts[:-1]) if is_concept(part)]
        if depths and _ending(file) in PICTURES:
            above.add(file.parts[: depths[0]])
    if len(above) > 1:
        names = ", ".join("/".join(parts) or "the top" for parts in sorted(above)[:NAMED])
        raise DatasetError(
            f"Folders named <repeats>_<word> lie in several places: {names}.",
            "A data set is one folder of them; regularisation images are a data set of their own. "
            "Nothing was taken over.",
            "Upload each of these folders by itself.",
        )
    return len(above.pop()) if above else 0


def _home(words: Words, into: Path | None) -> str:
    """The folder for pictures that have none: the data set's only one, or that of the words."""
    there = concepts(into) if into else []
    return there[0].name if len(there) == 1 else words.folder


def _free(groups: Iterable[Group], inside: tuple[str, ...], key: Group) -> Group:
    """A stem that no other picture of the folder has: a caption belongs to one picture alone."""
    taken = {(folder, stem.casefold()) for folder, stem in groups}
    folders, stem = key
    if (inside, stem.casefold()) in taken and folders:
        stem = safe_name("_".join((*folders, stem)))
    number, first = 2, stem
    while (inside, stem.casefold()) in taken:
        stem, number = f"{first} ({number})", number + 1
    return inside, stem


def _no_picture(left_out: list[str]) -> DatasetError:
    there = f" among {', '.join(left_out[:NAMED])}" if left_out else ""
    more = f" and {len(left_out) - NAMED:,} more" if len(left_out) > NAMED else ""
    return DatasetError(
        f"There is no picture{there}{more}.",
        READABLE,
        "Choose pictures, a folder of them, or a zip with them inside.",
    )
