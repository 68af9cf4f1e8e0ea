"""Receiving: uploaded files, zips and plain folders become a data set folder that can be trained.

    received = receive(sources, folder, Words("zxdog", "dog"))
    received.dataset / "10_zxdog dog"          pictures, each with its caption if it has one

Folders named `<repeats>_<word>` stay as they are; pictures elsewhere go into one of the trigger
word and the class word. A new data set appears whole, by a rename; nothing is overwritten.
"""

from __future__ import annotations

import filecmp
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from kit.dataset.data_sets import PICTURES, Words, free_name, is_concept
from kit.dataset.files import DAMAGED, READABLE, measure, readable, remedy
from kit.dataset.images import CONCEPT
from kit.dataset.incoming import ZIP, Source, incoming
from kit.dataset.placing import NAMED, Placement, placed
from kit.errors import DatasetError, OutputError

SPARE = 50_000_000  # bytes that stay free
A_YEAR = 1000  # so many repeats are seldom meant

Tell: TypeAlias = Callable[[int, int], object]  # bytes done, bytes in all


@dataclass(frozen=True)
class Received:
    """What has become of an upload.

    dataset: the folder for train_data_dir; arranged: the folder in it that was named by the words,
    if pictures had none of their own; notes: what is worth knowing, a sentence each.
    """

    dataset: Path
    pictures: int
    captions: int
    arranged: Path | None = None
    notes: tuple[str, ...] = ()


def receive(
    sources: Sequence[Source],
    folder: Path,
    words: Words,
    *,
    name: str = "",
    into: Path | None = None,
    kept: Path | None = None,
    tell: Tell | None = None,
) -> Received:
    """Put files and zips into a data set below `folder`.

    name: of a new data set; where it is taken, a number is added. into: a data set that is there
    and gets more. kept: another folder in which the new name must be free.

    Raises: DatasetError for zips that cannot be used, and where no picture came; OutputError where
    the folder cannot be written or is full. Then nothing has changed.
    """
    with ExitStack() as stack:
        placement = placed(incoming(sources, stack), words, into)
        part = folder / f".{uuid.uuid4().hex[:8]}.part"
        try:
            _check_room(folder, placement.size)
            _write(placement, part, tell)
            damaged = _take_out_damaged(part)
            notes = [*_left_out(placement), *_years(placement), *_untaught(placement.endings)]
            notes += _told_damaged(damaged)
            if into is None:
                wanted = name or _name_of(sources, words)
                dataset = folder / free_name(wanted, folder, *([kept] if kept else []))
                part.rename(dataset)
            else:
                dataset = into
                notes += _merge(part, dataset)
        except OSError as error:
            raise OutputError(
                f"{folder} cannot be written: {error.strerror or error}.",
                "Nothing was taken over.",
                "Free some space there, or choose another folder.",
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    pictures = sum(ending in PICTURES for ending in placement.endings) - len(damaged)
    arranged = dataset / placement.arranged if placement.arranged else None
    captions = len(placement.endings) - pictures - len(damaged)
    return Received(dataset, pictures, captions, arranged, tuple(notes))


def _name_of(sources: Sequence[Source], words: Words) -> str:
    """A new data set's name: its zip's or its folder's, else the words."""
    first = sources[0].name.replace("\\", "/").strip("/")
    if first.lower().endswith(ZIP):
        return Path(first).stem
    top, slash, _ = first.partition("/")
    if slash and not is_concept(top):
        return top
    return f"{words.trigger} {words.class_word}".strip() or "pictures"


def _check_room(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        raise OutputError(
            f"The disk is too full: the pictures need {needed / 1e6:,.0f} MB, and {folder} has "
            f"{max(0, free - SPARE) / 1e6:,.0f} MB left.",
            "Nothing was taken over.",
            "Free some space there, or choose another folder.",
        )


def _write(placement: Placement, part: Path, tell: Tell | None) -> None:
    done, total = 0, placement.size
    for (folders, stem), files in placement.groups.items():
        target = part.joinpath(*folders)
        target.mkdir(parents=True, exist_ok=True)
        for ending, file in files:
            file.write(target / f"{stem}{ending}")
            done += file.size
            if tell:
                tell(done, total)


def _take_out_damaged(part: Path) -> dict[str, str]:
    """Remove pictures that nothing can read; returns why, by name. Captions beside them stay.

    Raises: DatasetError where no picture is left.
    """
    pictures = [path for path in sorted(part.rglob("*")) if path.suffix in PICTURES]
    known = readable({path.suffix for path in pictures})  # of others nothing can be said here
    found = {path: measure(path) for path in pictures if path.suffix in known}
    damaged = {path: str(why) for path, why in found.items() if why in DAMAGED}
    names = {path.name: why for path, why in damaged.items()}
    if damaged and len(damaged) == len(pictures):
        raise DatasetError(
            f"No picture that came can be used: {_listed(names)}.",
            READABLE,
            "Nothing was taken over. Upload them anew from where they were made.",
        )
    for path in damaged:
        path.unlink()
    return names


def _told_damaged(damaged: Mapping[str, str]) -> list[str]:
    if not damaged:
        return []
    which = "1 picture is" if len(damaged) == 1 else f"{len(damaged)} pictures are"
    return [f"{which} damaged and left out: {_listed(damaged)}"]


def _listed(damaged: Mapping[str, str]) -> str:
    shown = [f"{name} ({why})" for name, why in list(damaged.items())[:NAMED]]
    more = f" and {len(damaged) - NAMED} more" if len(damaged) > NAMED else ""
    return ", ".join(shown) + more


def _merge(part: Path, dataset: Path) -> list[str]:
    """Move what came into a data set that is there; what is there stays as it is.

    Raises: OSError, after everything was moved back.
    """
    moves: list[tuple[Path, Path]] = []
    same, other_name, other_text = 0, 0, 0
    for folder in sorted(path for path in part.rglob("*") if path.is_dir()):
        target = dataset / folder.relative_to(part)
        files = sorted(path for path in folder.iterdir() if path.is_file())
        groups: dict[str, list[Path]] = {}
        for path in files:
            groups.setdefault(path.stem, []).append(path)
        for stem, group in groups.items():
            new = _stem_in(target, stem, group, taken={t.stem for _, t in moves})
            other_name += new != stem
            for path in group:
                place = target / f"{new}{path.suffix}"
                if not place.exists():
                    moves.append((path, place))
                elif filecmp.cmp(path, place, shallow=False):
                    same += 1
                else:
                    other_text += 1
    _move(moves)
    notes = []
    if same:
        notes.append(f"{_counted(same)} {_was(same)} there already")
    if other_name:
        notes.append(f"{_counted(other_name)} got a number behind the name, which was taken")
    if other_text == 1:
        notes.append("1 caption differs from the one that is there, which stays")
    elif other_text:
        notes.append(f"{other_text} captions differ from those that are there, which stay")
    return notes


def _stem_in(target: Path, stem: str, group: list[Path], taken: set[str]) -> str:
    """The stem under which a picture with its captions can lie beside what is there."""
    there = [path for path in picture_files(target) if path.stem.casefold() == stem.casefold()]
    pictures = [path for path in group if path.suffix in PICTURES]
    if not there or not pictures:
        return stem
    names = {path.name: path for path in there}
    if all(p.name in names and filecmp.cmp(p, names[p.name], shallow=False) for p in pictures):
        return stem
    used = {path.stem.casefold() for path in picture_files(target)} | {t.casefold() for t in taken}
    return next(
        new for number in range(2, 100_000) if (new := f"{stem} ({number})").casefold() not in used
    )


def picture_files(folder: Path) -> list[Path]:
    """Files with a picture's ending, whether they can be read here or not."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.suffix.lower() in PICTURES]


def _move(moves: list[tuple[Path, Path]]) -> None:
    done: list[tuple[Path, Path]] = []
    try:
        for path, place in moves:
            place.parent.mkdir(exist_ok=True)
            path.rename(place)
            done.append((path, place))
    except OSError:
        for path, place in reversed(done):
            place.rename(path)
        raise


def _left_out(placement: Placement) -> list[str]:
    if not placement.left_out:
        return []
    names = ", ".join(placement.left_out[:NAMED])
    more = f" and {len(placement.left_out) - NAMED} more" if len(placement.left_out) > NAMED else ""
    return [f"{_counted(len(placement.left_out))} left out, no picture or caption: {names}{more}"]


def _years(placement: Placement) -> list[str]:
    """Folders of dates, which read as repeats."""
    names = {folders[0] for folders, _ in placement.groups}
    found = sorted(n for n in names if (m := CONCEPT.match(n)) and int(m[1]) >= A_YEAR)
    return [f"{name} is read as {name.partition('_')[0]} repeats of each picture" for name in found]


def _untaught(endings: list[str]) -> list[str]:
    """Pictures that need a package which is not here."""
    missing = {e for e in endings if e in PICTURES} - readable(set(endings))
    return [
        f"{_counted(endings.count(e))} of kind {e} cannot be read yet: {remedy(e)}, then restart "
        "the kernel"
        for e in sorted(missing)
    ]


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _counted(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"
