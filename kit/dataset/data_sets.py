"""Data set folders on disk: which there are, what their names say, copies of them elsewhere."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from kit.catalog import CAPTION_EXTENSIONS
from kit.dataset.files import ALWAYS, PLUG_INS, READABLE, image_files
from kit.dataset.images import CONCEPT, MOST_REPEATS
from kit.dataset.incoming import MOST_FILES, ZIP, Source, safe_name
from kit.errors import DatasetError, OutputError

PICTURES = frozenset({*ALWAYS, *PLUG_INS})  # by their endings, whether they can be read here or not


@dataclass(frozen=True)
class Words:
    """What the pictures show, and how often each is seen in an epoch."""

    trigger: str = ""
    class_word: str = ""
    repeats: int = 10

    @property
    def folder(self) -> str:
        """`10_zxdog dog`: what stands behind the number is the caption of pictures without one."""
        text = " ".join(f"{self.trigger} {self.class_word}".split())
        return f"{self.repeats}_{safe_name(text) if text else ''}"


def concepts(folder: Path) -> list[Path]:
    """Its <repeats>_<word> folders, with pictures or without."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_concept(path.name))


def is_concept(name: str) -> bool:
    """A folder's name that tells repeats which a training believes."""
    match = CONCEPT.match(name)
    return match is not None and 1 <= int(match[1]) <= MOST_REPEATS


def known_sets(folder: Path) -> dict[str, int]:
    """The data sets below a folder: their names, with the number of pictures."""
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return {}
    counts = {path.name: picture_count(path) for path in inside if not path.name.startswith(".")}
    return {name: count for name, count in counts.items() if count}


def picture_count(dataset: Path) -> int:
    """The pictures in its <repeats>_<word> folders."""
    return sum(len(image_files(path)) for path in concepts(dataset))


def words_of(dataset: Path) -> Words | None:
    """What the name of its only <repeats>_<word> folder says; None where there are more or none."""
    there = concepts(dataset)
    match = CONCEPT.match(there[0].name) if len(there) == 1 else None
    if match is None:
        return None
    trigger, _, class_word = match[2].partition(" ")
    return Words(trigger, class_word, int(match[1]))


def renamed(arranged: Path, words: Words) -> Path:
    """Give a folder that was arranged before the words were known their name.

    Raises: OutputError where that name is taken, or the folder cannot be renamed.
    """
    target = arranged.with_name(words.folder)
    if target == arranged:
        return arranged
    if target.exists():
        raise OutputError(
            f"{target} is there already.",
            "Pictures are never mixed without being asked.",
            "Choose another trigger word, or move that folder away.",
        )
    try:
        return arranged.rename(target)
    except OSError as error:
        raise OutputError(
            f"{arranged} cannot be renamed: {error.strerror or error}.",
            do="See that you may write there.",
        ) from error


def usable_as_it_is(path: Path) -> Path | None:
    """The folder with <repeats>_<word> folders at or below a path, if there is exactly one."""
    parents = {concept.parent for concept in _concepts_below(path)}
    return parents.pop() if len(parents) == 1 else None


def sources_in(path: Path) -> list[Source]:
    """A zip, or the files of a folder and below it, to be copied.

    Raises: DatasetError where there is nothing of that kind.
    """
    if path.is_file() and path.suffix.lower() == ZIP:
        return [Source(path, path.name)]
    if not path.is_dir():
        there = "is neither a folder nor a zip" if path.exists() else "does not exist"
        raise DatasetError(
            f"{path} {there}.",
            "A folder with pictures, one of <repeats>_<word> folders, or a zip can be used.",
            "Correct the path.",
        )
    top = path.parent if CONCEPT.match(path.name) else path
    found: list[Source] = []
    for file in path.rglob("*"):
        inside = file.relative_to(top)
        if file.is_file() and file.suffix.lower() in {*PICTURES, *CAPTION_EXTENSIONS}:
            found.append(Source(file, inside.as_posix()))
        if len(found) > MOST_FILES:
            break  # told by `incoming`
    if not any(source.path.suffix.lower() in PICTURES for source in found):
        raise DatasetError(
            f"There is no picture in {path}.",
            READABLE,
            "Name another folder, or upload pictures.",
        )
    return sorted(found, key=lambda source: source.name)


def copy_new(dataset: Path, target: Path) -> int:
    """Copy what the target lacks or has in another size; returns how many files were copied.

    Raises: OSError.
    """
    count = 0
    for path in sorted(dataset.rglob("*")):
        inside = path.relative_to(dataset)
        if not path.is_file() or any(part.startswith(".") for part in inside.parts):
            continue
        copy = target / inside
        if copy.is_file() and copy.stat().st_size == path.stat().st_size:
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        part = copy.with_name(f".{copy.name}.part")
        shutil.copyfile(path, part)
        part.replace(copy)
        count += 1
    return count


def is_same(one: Path, other: Path) -> bool:
    """Two data sets hold files of the same names and sizes."""
    return bool(sizes := _sizes(one)) and sizes == _sizes(other)


def free_name(wanted: str, *folders: Path) -> str:
    """The name, with a number behind it where one of the folders has it already."""
    plain = safe_name(wanted).lstrip(". ") or "pictures"
    taken = {
        path.name.casefold() for folder in folders if folder.is_dir() for path in folder.iterdir()
    }
    names = (plain if number == 1 else f"{plain} {number}" for number in range(1, 100_000))
    return next(name for name in names if name.casefold() not in taken)


def _sizes(dataset: Path) -> dict[str, int]:
    files = (path for path in dataset.rglob("*") if path.is_file())
    inside = ((path.relative_to(dataset), path.stat().st_size) for path in files)
    return {p.as_posix(): size for p, size in inside if not any(x.startswith(".") for x in p.parts)}


def _concepts_below(path: Path, depth: int = 3) -> list[Path]:
    """Those with pictures; not deeper than Kaggle's and Drive's folders usually go."""
    if not path.is_dir() or depth == 0:
        return []
    if found := [each for each in concepts(path) if image_files(each)]:
        return found
    inside = sorted(each for each in path.iterdir() if each.is_dir() and each.name[0] != ".")
    return [concept for each in inside for concept in _concepts_below(each, depth - 1)]
