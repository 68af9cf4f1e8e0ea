"""Incoming files: loose ones and what zips hold, guarded before a single byte is written.

Raises for a whole zip, not for its entries one by one: whoever packed it packs it again.
"""

from __future__ import annotations

import os
import shutil
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kit.dataset.files import READABLE
from kit.errors import DatasetError

MOST_FILES = 9_999
ZIP = ".zip"
# Pictures hardly shrink in a zip; what unpacks to this many times its size was made to do harm.
MOST_SWELLING = 200
BELIEVED = 1_000_000_000  # bytes that any zip may unpack to
LONGEST_NAME = 180  # bytes; file systems take 255, and a number or ".part" may be added
FORBIDDEN = str.maketrans(dict.fromkeys('<>:"/\\|?*', "_"))  # on one system or another
HIDDEN = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})  # written by systems, not by people


@dataclass(frozen=True)
class Source:
    """A file on disk that came in, under the name its owner knows, folders included.

    is_ours: a staged copy, which may be linked into place; else it is copied.
    """

    path: Path
    name: str
    is_ours: bool = False


@dataclass(frozen=True)
class Incoming:
    """One file to come: the parts of its name, cleaned, its bytes, and what writes it."""

    parts: tuple[str, ...]
    size: int
    write: Callable[[Path], object]


def incoming(sources: Iterable[Source], stack: ExitStack) -> list[Incoming]:
    """Every file of the sources, those inside zips included; hidden ones are left out.

    stack: keeps the zips open until the files are written.

    Raises: DatasetError for a zip that is broken, locked, too large, or leads outside; and for more
    than 9,999 files.
    """
    found: list[Incoming] = []
    for source in sources:
        if source.path.suffix.lower() == ZIP or source.name.lower().endswith(ZIP):
            found += _unpacked(source, stack)
        elif parts := name_parts(source.name, source.name):
            found.append(Incoming(parts, source.path.stat().st_size, partial(_put, source)))
    if len(found) > MOST_FILES:
        raise _too_many("The upload", len(found))
    return found


def name_parts(name: str, shown: str) -> tuple[str, ...]:
    """The cleaned parts of a name with folders; none where any of them is hidden.

    Raises: DatasetError where the name leads outside of its folder.
    """
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if plain.startswith("/") or ".." in parts or (parts and parts[0][1:2] == ":"):
        raise DatasetError(
            f"{shown} leads outside of the data set's folder.",
            "Names are relative, as in 10_dog/001.jpg. Nothing was taken over.",
            "Pack the folder again with an ordinary program.",
        )
    if any(part.startswith(".") or part in HIDDEN for part in parts):
        return ()
    return tuple(safe_name(part) for part in parts)


def safe_name(name: str) -> str:
    """A file's or folder's name that every system takes; its ending stays."""
    text = unicodedata.normalize("NFC", name).translate(FORBIDDEN)
    text = "".join("_" if unicodedata.category(c)[0] == "C" else c for c in text)
    text = text.strip().rstrip(".") or "_"
    stem, dot, ending = text.rpartition(".")
    if not dot or len(ending) > 10:
        stem, ending = text, ""
    room = LONGEST_NAME - len((dot + ending).encode())
    stem = stem.encode()[:room].decode(errors="ignore")
    return stem + (dot + ending if ending else "")


def _unpacked(source: Source, stack: ExitStack) -> Iterator[Incoming]:
    shown = Path(source.name).name
    try:
        archive = stack.enter_context(zipfile.ZipFile(source.path))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _broken(shown, str(error)) from error
    entries = archive.infolist()
    _check_amount(shown, entries, source.path.stat().st_size)
    for entry in entries:
        parts = name_parts(entry.filename, f"{entry.filename} in {shown}")
        _check_kind(shown, entry)
        if parts and not entry.is_dir():
            yield Incoming(parts, entry.file_size, partial(_extract, archive, entry, shown))


def _check_amount(shown: str, entries: list[zipfile.ZipInfo], packed: int) -> None:
    if len(entries) > MOST_FILES:
        raise _too_many(shown, len(entries))
    total = sum(entry.file_size for entry in entries)
    if total > max(BELIEVED, MOST_SWELLING * packed):
        raise DatasetError(
            f"{shown} has {packed / 1e6:.1f} MB and would unpack to {total / 1e9:.1f} GB.",
            "Pictures hardly shrink in a zip, so this is not one of pictures. Nothing was taken "
            "over.",
            "Pack the pictures themselves.",
        )


def _check_kind(shown: str, entry: zipfile.ZipInfo) -> None:
    """Raises: DatasetError for links, other things that are no files, and locked entries."""
    mode = entry.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        what = "a link" if stat.S_ISLNK(mode) else "no ordinary file"
        raise DatasetError(
            f"{entry.filename} in {shown} is {what}.",
            "A data set is made of files and folders. Nothing was taken over.",
            "Pack the files themselves.",
        )
    if entry.flag_bits & 0x1:
        raise DatasetError(
            f"{shown} is locked with a password.",
            "Only open zips can be unpacked. Nothing was taken over.",
            "Pack it again without a password.",
        )


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, shown: str, target: Path) -> None:
    try:
        packed = archive.open(entry)
    except NotImplementedError as error:
        raise DatasetError(
            f"{shown} is packed in a way that cannot be read here ({error}).",
            "Deflate, bzip2 and LZMA can. Nothing was taken over.",
            "Pack it again as an ordinary zip.",
        ) from error
    except Exception as error:  # of names that are no text, too
        raise _broken(shown, str(error)) from error
    with packed, target.open("wb") as file:
        while True:
            try:  # only what is read: a full disk is another matter
                piece = packed.read(1 << 20)
            except Exception as error:  # each way of packing has errors of its own
                raise _broken(shown, f"{entry.filename}: {error}") from error
            if not piece:
                return
            file.write(piece)


def _put(source: Source, target: Path) -> None:
    if source.is_ours:
        try:
            os.link(source.path, target)
            return
        except OSError:
            pass  # another disk, or one without hard links
    shutil.copyfile(source.path, target)


def _broken(shown: str, why: str) -> DatasetError:
    return DatasetError(
        f"{shown} is broken or no zip ({why}).",
        f"A zip of pictures can be unpacked, or the pictures themselves taken. {READABLE}",
        "Nothing was taken over: pack it again, or upload the pictures as they are.",
    )


def _too_many(shown: str, count: int) -> DatasetError:
    return DatasetError(
        f"{shown} holds {count:,} files.",
        f"At most {MOST_FILES:,} are taken at once. Nothing was taken over.",
        "Pack fewer pictures; a LoRA needs twenty to a few hundred.",
    )
