"""Captions written beside their images, with every old text kept and each change undone.

    change = caption_change(Path("10_dog/1.txt"), "zxdog, on a sofa")
    save([change], "caption of 1.jpg")
    undo(newest_edit([Path("10_dog")]))

Before a caption is written, its old and its new text are added to the folder's journal, a line of
JSON for each file: `{"edit": 1764300000000000000, "what": "caption of 1.jpg", "file": "1.txt",
"before": "...", "after": "..."}`; null is a file that was not there. An edit that was taken back
has `{"undone": <edit>}`. Other programs pass over the journal, as its name begins with a dot.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kit.dataset.caption_tags import TagStyle, tag_style
from kit.dataset.images import TrainImage, caption_file
from kit.errors import DatasetError, OutputError, Unreadable
from kit.reading.paths import resolved, why_no_path
from kit.reading.texts import from_json
from kit.settings import Settings

JOURNAL = ".captions_before.jsonl"
KEYS = {"edit", "what", "file", "before", "after"}
MARK = "\ufeff"  # some editors of Windows put it before the text


@dataclass(frozen=True)
class Caption:
    """An image's caption, and where it is kept."""

    image: Path
    text: str  # as it is trained, every line; without a file the folder's word
    file: Path  # that holds it, or would
    is_written: bool  # there is such a file
    style: TagStyle
    locked: str = ""  # why it cannot be edited here; "" where it can


@dataclass(frozen=True)
class Change:
    """A caption file's whole content, before and after; None: there is no such file."""

    file: Path
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Edit:
    """What was changed at once, and is undone at once."""

    number: int  # nanoseconds since 1970
    what: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Proposal:
    """What one edit of many captions would do."""

    changes: tuple[tuple[Caption, str], ...]  # a caption, and its new text
    same: int  # captions that it leaves as they are
    locked: int  # that cannot be edited here

    @property
    def new_files(self) -> int:
        """Images that get their first caption file."""
        return sum(not caption.is_written for caption, _ in self.changes)


def captions_of(
    images: Sequence[TrainImage], ways: Sequence[Settings], metadata: Sequence[str] = ()
) -> tuple[Caption, ...]:
    """Where each image's caption is kept.

    ways: the settings of each subset, or the run's alone. metadata: the subsets' metadata files.
    """
    found = []
    for image in images:
        settings = ways[image.subset]
        named = metadata[image.subset] if metadata else ""
        style = tag_style(settings.captions)
        if named:
            name = Path(named).name
            why = f"It stands in {name}, with the captions of other images: change it there."
            found.append(Caption(image.path, image.caption, Path(named), True, style, why))
            continue
        extension = settings.images.caption_extension or ".caption"
        file = caption_file(image.path, extension)
        place = file or image.path.with_suffix(extension)
        found.append(Caption(image.path, image.caption, place, file is not None, style))
    return tuple(found)


def proposal(captions: Sequence[Caption], edit: Callable[[str, TagStyle], str]) -> Proposal:
    """What an edit would make of these captions. Images that share a file change it once."""
    changes: dict[Path, tuple[Caption, str]] = {}
    same: set[Path] = set()
    locked = 0
    for caption in captions:
        if caption.locked:
            locked += 1
        elif (after := edit(caption.text, caption.style)) != caption.text:
            changes.setdefault(caption.file, (caption, after))
        else:
            same.add(caption.file)
    return Proposal(tuple(changes.values()), len(same - changes.keys()), locked)


def caption_change(file: Path, text: str) -> Change | None:
    """What writing this caption would change; None where it is what the file says already.

    Lines are stripped, as the training reads them. The file keeps its line ends, and its last one.

    Raises: DatasetError where the file is there and cannot be read.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    before = _content(file)
    if before is None:
        return Change(file, None, "\n".join(lines)) if lines else None
    old = before.removeprefix(MARK)
    if lines == [line.strip() for line in old.splitlines() if line.strip()]:
        return None
    end = "\r\n" if "\r\n" in old else "\n"
    last = end if lines and old.endswith("\n") else ""
    mark = MARK if before.startswith(MARK) else ""
    return Change(file, before, f"{mark}{end.join(lines)}{last}")


def save(changes: Sequence[Change], what: str) -> Edit:
    """Write all of these captions or none, after their old texts went into the journal.

    Raises: DatasetError where a file has been changed since it was looked at; OutputError where
    the folder cannot be written. Either way every caption is as it was.
    """
    edit = Edit(time.time_ns(), what, tuple(changes))
    for change in edit.changes:
        if _content(change.file) != change.before:
            raise DatasetError(
                f"{change.file.name} has been changed by another program meanwhile.",
                "No caption was changed here.",
                "Look at it, and change it again.",
            )
    for folder, own in _by_folder(edit.changes).items():
        _note(folder, [_row(edit, change) for change in own])
    try:
        _write_all(edit.changes)
    except OutputError:
        for folder in _by_folder(edit.changes):
            _note(folder, [{"undone": edit.number}])
        raise
    return edit


def newest_edit(folders: Iterable[Path]) -> Edit | None:
    """The last edit in these folders that can be undone: also one of an earlier session."""
    edits: dict[int, Edit] = {}
    undone: set[int] = set()
    for folder in dict.fromkeys(folders):
        for row in _rows(folder / JOURNAL):
            if "undone" in row:
                undone.add(row["undone"])
                continue
            change = Change(folder / row["file"], row["before"], row["after"])
            edit = edits.setdefault(row["edit"], Edit(row["edit"], row["what"], ()))
            edits[edit.number] = replace(edit, changes=(*edit.changes, change))
    for number in sorted(edits.keys() - undone, reverse=True):
        if any(_has(change.file, change.after) for change in edits[number].changes):
            return edits[number]
    return None


def undo(edit: Edit) -> tuple[list[Path], list[Path]]:
    """Bring the old texts back; returns the files that have them, and those changed since.

    What has been changed since stays as it is; its older text stays in the journal.

    Raises: OutputError where the folder cannot be written; then nothing is undone.
    """
    back = [change for change in edit.changes if _has(change.file, change.after)]
    since = [
        change.file
        for change in edit.changes
        if change not in back and not _has(change.file, change.before)
    ]
    _write_all([Change(change.file, change.after, change.before) for change in back])
    for folder in _by_folder(edit.changes):
        _note(folder, [{"undone": edit.number}])
    return [change.file for change in back], since


def _has(file: Path, content: str | None) -> bool:
    try:
        return _content(file) == content
    except DatasetError:
        return False


def _content(file: Path) -> str | None:
    """All of a file, its line ends as they are; None where there is none."""
    try:
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = error.reason if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DatasetError(
            f"The caption file {file} cannot be read as UTF-8 text: {why}.",
            do="Save it as UTF-8 in your editor.",
        ) from error


def _by_folder(changes: Sequence[Change]) -> dict[Path, list[Change]]:
    folders: dict[Path, list[Change]] = {}
    for change in changes:
        folders.setdefault(change.file.parent, []).append(change)
    return folders


def _row(edit: Edit, change: Change) -> dict[str, object]:
    return {
        "edit": edit.number,
        "what": edit.what,
        "file": change.file.name,
        "before": change.before,
        "after": change.after,
    }


def _note(folder: Path, rows: Sequence[dict[str, object]]) -> None:
    """Add rows to a folder's journal, and see them on the disk."""
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    try:
        with (folder / JOURNAL).open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                text = text if file.read() == b"\n" else f"\n{text}"  # after a line that broke off
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _rows(journal: Path) -> Iterator[dict[str, Any]]:
    """What the journal says; a line that broke off, or is none of ours, is passed over."""
    try:
        lines = journal.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            row = from_json(line, journal)
        except Unreadable:
            continue
        if isinstance(row, dict) and _is_ours(row):
            yield row


def _is_ours(row: dict[str, Any]) -> bool:
    """A row of the journal; its file lies in the journal's own folder."""
    if "undone" in row:
        return type(row["undone"]) is int
    if not row.keys() >= KEYS or type(row["edit"]) is not int:
        return False
    texts = (row["before"], row["after"])
    name = row["file"]
    is_name = isinstance(name, str) and Path(name).name == name and not why_no_path(name)
    is_told = isinstance(row["what"], str)
    return is_name and is_told and all(t is None or isinstance(t, str) for t in texts)


def _write_all(changes: Sequence[Change]) -> None:
    """All of them, or the old texts again."""
    done: list[Change] = []
    try:
        for change in changes:
            _write(change.file, change.after)
            done.append(change)
    except OSError as error:
        stuck = [written.file.name for written in reversed(done) if not _is_put_back(written)]
        raise _cannot_write(changes[len(done)].file.parent, error, stuck) from error


def _is_put_back(change: Change) -> bool:
    try:
        _write(change.file, change.before)
    except OSError:
        return False
    return True


def _write(file: Path, content: str | None) -> None:
    """Whole or not at all; a link goes on pointing to its file."""
    if content is None:
        file.unlink(missing_ok=True)
        return
    target = resolved(file)
    part = target.with_name(f".{target.name}.part")  # hidden: no training takes it for a caption
    try:
        with part.open("wb") as written:
            written.write(content.encode("utf-8"))
            written.flush()
            os.fsync(written.fileno())
        part.replace(target)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _cannot_write(folder: Path, error: OSError, stuck: Sequence[str] = ()) -> OutputError:
    lost = f" But {', '.join(stuck)} has its new text; the old one stands in {JOURNAL}."
    return OutputError(
        f"The captions of {folder} cannot be written: {error.strerror or error}.",
        f"They are as they were.{lost if stuck else ''}",
        "Copy the pictures into a folder of your own: Prepare folders does that.",
    )
