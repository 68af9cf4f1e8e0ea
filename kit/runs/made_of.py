"""What a run is made of: its settings, and every picture with its caption, told by their content.

    <name>.run/made_of.json    {"settings": {...}, "ways": [...], "files": {...}, "pictures": [...]}

It is kept so that a later start can say what differs. Each picture's hash is remembered with the
file's size and time, and is not made again while these are the same: a file is read once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from kit.dataset.captions import varies
from kit.dataset.images import TrainImage
from kit.dataset.subsets import Subset
from kit.errors import Unreadable
from kit.reading.paths import path_of
from kit.reading.texts import read_json
from kit.runs.atomic_write import write_atomically
from kit.runs.disk import why_unwritten
from kit.settings import Captions, declarations

FILE = "made_of.json"
AT_ONCE = 8  # files read side by side; each waits for its storage
WORDS = 40  # characters of a caption that are kept, to name it by
SAMPLE = 1 << 16  # bytes at the beginning, in the middle and at the end of a large file


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: its name is that of its folder and file, wherever the folder lies."""

    name: str
    size: int  # bytes
    time: int  # of the last change, in nanoseconds
    caption: str  # a hash of its text
    words: str  # its first ones
    repeats: int
    is_reg: bool = False
    subset: int = 0
    sha256: str = ""  # of the file's bytes; "" where it was not read yet


@dataclass(frozen=True)
class MadeOf:
    """Settings by name, what a dataset configuration changes, what paths hold, and the pictures.

    files: by setting, for those that name a file or folder: what tells its content.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    ways: Sequence[Any] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    captions_vary: bool = False
    paths: tuple[Path, ...] = ()  # of the pictures, which no file keeps
    processes: int = 1  # that share what `settings` says of gradient_accumulation_steps


def made_of(
    asked: Mapping[str, Any],
    captions: Captions,
    images: Sequence[TrainImage],
    subsets: Sequence[Subset] = (),
    *,
    processes: int = 1,
) -> MadeOf:
    """What a run of these would be made of; no picture is read for it.

    asked: every setting by name; its gradient_accumulation_steps are those of all processes
    together, so that a run goes on on any number of them.
    """
    shaping = {name: value for name, value in asked.items() if declarations()[name].shapes_run}
    stats = [image.path.stat() for image in images]
    return MadeOf(
        {name: value for name, value in shaping.items() if not _is_place(name)},
        [
            [subset.dataset, {name: subset.settings.flat()[name] for name in sorted(subset.given)}]
            for subset in subsets
        ],
        {name: str(value) for name, value in shaping.items() if _is_place(name) and value},
        tuple(_picture(i, stat) for i, stat in zip(images, stats, strict=True)),
        varies(captions, [image.caption for image in images]),
        tuple(image.path for image in images),
        processes,
    )


def _is_place(name: str) -> bool:
    return declarations()[name].type == "path" and name != "resume"


def _picture(image: TrainImage, stat: os.stat_result) -> Picture:
    return Picture(
        f"{image.folder}/{image.path.name}",
        stat.st_size,
        stat.st_mtime_ns,
        hashlib.sha256(image.caption.encode("utf-8", "surrogatepass")).hexdigest()[:32],
        " ".join(image.caption.split())[:WORDS],
        image.repeats,
        image.is_reg,
        image.subset,
    )


def read_made_of(run_dir: Path) -> MadeOf | None:
    """What is kept in a run's folder; None where nothing is that can be read."""
    path = run_dir / FILE
    try:
        stat = path.stat()
        return _read(path, stat.st_mtime_ns, stat.st_size)
    except (Unreadable, OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


@lru_cache(maxsize=8)  # the form plans at every change
def _read(path: Path, _time: int, _size: int) -> MadeOf:
    known = read_json(path)
    return MadeOf(
        dict(known["settings"]),
        list(known["ways"]),
        dict(known["files"]),
        tuple(Picture(**each) for each in known["pictures"]),
    )


def keep(run_dir: Path, made: MadeOf, files: Sequence[Path] = ()) -> str:
    """Write it into the run's folder, with the hashes that are not known yet; what failed, or "".

    files: where the pictures are read, in their order: copies of them, if their own place is slow.
    """
    files = files or made.paths
    unknown = [n for n, picture in enumerate(made.pictures) if not picture.sha256]
    hashes = dict(zip(unknown, hashes_of([files[n] for n in unknown]), strict=True))
    pictures = [
        asdict(replace(picture, sha256=hashes.get(number, picture.sha256)))
        for number, picture in enumerate(made.pictures)
    ]
    kept = {
        "settings": dict(made.settings),
        "ways": list(made.ways),
        "files": {
            name: identity(place)
            for name, place in made.files.items()
            if declarations()[name].resumes != "freely"  # nobody would ask
        },
        "pictures": pictures,
    }
    text = json.dumps(kept, default=str)
    try:
        write_atomically(run_dir / FILE, lambda part: part.write_text(text, "utf-8"))
    except OSError as error:
        why = why_unwritten(error, run_dir / FILE, len(text))
        return f"{run_dir / FILE} cannot be written: {why}"
    return ""


def hashes_of(paths: Sequence[Path]) -> list[str]:
    """A hash of every file's bytes, read in pieces; "" for one that cannot be read."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_hash_of, paths))


def _hash_of(path: Path) -> str:
    with suppress(OSError):
        stat = path.stat()
        return _hashed(path, stat.st_size, stat.st_mtime_ns)
    return ""


@lru_cache(maxsize=100_000)
def _hashed(path: Path, _size: int, _time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(place: str) -> str:
    """What tells the content of a file or folder, wherever it lies; a name that is none, itself.

    Base models have gigabytes: of a file its size and three samples count, of a folder the names
    and sizes of its files.
    """
    with suppress(Unreadable, OSError, ValueError):
        path = path_of(place)
        if path.is_dir():
            return _of_folder(path, _seen_in(path))
        stat = path.stat()
        return _sampled(path, stat.st_size, stat.st_mtime_ns)
    return f"name {place}"


def earlier_identity(place: str) -> str:
    """What `identity` was until 2026-11 for a folder: hidden ones were looked into, caches too."""
    with suppress(Unreadable, OSError, ValueError):
        path = path_of(place)
        if path.is_dir():
            return _of_folder(path, (f for f in path.rglob("*") if not _is_dotted(f.parts[-2:])))
    return identity(place)


def _is_dotted(names: Iterable[str]) -> bool:
    return any(name.startswith(".") for name in names)


def _of_folder(path: Path, files: Iterable[Path]) -> str:
    listed = sorted(
        (each.relative_to(path).as_posix(), each.stat().st_size) for each in files if each.is_file()
    )
    return f"folder {hashlib.sha256(json.dumps(listed).encode()).hexdigest()}"


def _seen_in(folder: Path) -> Iterator[Path]:
    """The files below a folder, none in hidden folders: caches hold many, and a drive is slow."""
    for root, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        yield from (Path(root, name) for name in names if not name.startswith("."))


@lru_cache(maxsize=64)
def _sampled(path: Path, size: int, _time: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in (0, size // 2, max(0, size - SAMPLE)):
            file.seek(start)
            digest.update(file.read(SAMPLE))
    return f"file {digest.hexdigest()}"
