"""Folders to images: what is there, how large, with which caption and how often.

A folder named `<repeats>_<word>` holds images that are seen that often per epoch; the word is the
caption of images without a caption file. Everything is sorted by name, so that the same folders
give the same run on every machine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kit.catalog import CAPTION_EXTENSIONS
from kit.dataset.files import READABLE, REFERENCE, image_files, measure, most_pixels
from kit.dataset.leftover import Leftover
from kit.errors import DatasetError, Unreadable
from kit.reading import paths
from kit.reading.paths import shortened, why_no_text
from kit.reading.texts import read_text

CONCEPT = re.compile(r"^(\d+)_(.*)$", re.DOTALL)
NUMBERED = re.compile(r"^[-+.\d]*_+")  # what is meant for repeats and is none
LONGEST_CAPTION = 10_000_000  # bytes
MOST_REPEATS = 100_000  # more is a date or another number that was not meant as repeats


@dataclass(frozen=True)
class TrainImage:
    """One picture on disk."""

    path: Path
    width: int  # as seen, after the EXIF orientation
    height: int
    caption: str  # every line of its file; without wildcards the first counts
    folder: str  # the folder's name, e.g. "10_cat"
    repeats: int
    is_reg: bool = False
    subset: int = 0  # of the dataset configuration, where there is one
    held_out: bool = False  # validated on, and never trained


@dataclass(frozen=True)
class Scan:
    """What the folders hold."""

    images: tuple[TrainImage, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass
class Findings:
    """Collected while scanning, told together at the end."""

    images: list[TrainImage] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    without_caption: list[str] = field(default_factory=list)
    other_extension: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    leftover: Leftover = field(default_factory=Leftover)
    most_pixels: int = field(default_factory=most_pixels)
    are_named: bool = False  # by a metadata file, and not looked for by their endings

    def size_of(self, path: Path) -> tuple[int, int] | None:
        """Width and height as seen; None where it cannot be used, which is kept to be told."""
        if why_no_text(str(path)):  # neither metadata nor a caption could hold it
            self.broken.append(f"{shortened(path.name)} (its path is no UTF-8 text; rename it)")
            return None
        size = measure(path)
        if isinstance(size, str):
            self.broken.append(f"{path.name} ({size})")
        elif size[0] * size[1] > self.most_pixels:
            self.too_large.append(f"{path.name} ({size[0]} x {size[1]})")
        else:
            return size
        return None


def scan(
    train_data_dir: str,
    reg_data_dir: str = "",
    *,
    caption_extension: str = ".txt",
    dataset_repeats: int | None = None,
    words: str = "",
) -> Scan:
    """Find every image of the training folder and of the regularisation folder.

    words: what stands around every caption.

    Raises: DatasetError where a folder is missing, holds no image, or holds them one level too
    high.
    """
    extension = caption_extension or ".caption"
    findings = Findings()
    with readable_folders():
        root = _existing(train_data_dir, "train_data_dir")
        roots = [root]
        _collect(root, findings, extension, "train_data_dir", dataset_repeats, is_reg=False)
        if reg_data_dir:
            reg_root = _existing(reg_data_dir, "reg_data_dir")
            roots.append(reg_root)
            _collect(reg_root, findings, extension, "reg_data_dir", dataset_repeats, is_reg=True)
    is_flat = any(image.path.parent in roots for image in findings.images)
    if dataset_repeats and not is_flat:
        findings.notices.append(
            "dataset_repeats has no effect: no image lies directly in train_data_dir; each "
            "<repeats>_<word> folder has its own"
        )
    return Scan(tuple(findings.images), tuple(told(findings, extension, words=words)))


@contextmanager
def readable_folders() -> Iterator[None]:
    """Tells what a file system refuses while folders are looked through.

    Raises: DatasetError.
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"{error.filename or 'A folder of images'} cannot be read: {error.strerror or error}.",
            "Every folder of images, every picture and every caption file must be readable.",
            "Give yourself the right to read it, or move it away; connect its storage again if it "
            "was lost.",
        ) from error


def _existing(path: str, setting: str) -> Path:
    if not path.strip():
        raise DatasetError(
            f"{setting} is blank.",
            "It is the folder that holds folders named <repeats>_<word>, e.g. "
            "images/10_cat/001.png.",
            f"Set {setting} to that folder.",
        )
    folder = paths.path_of(path, setting)
    if not paths.is_folder(folder):
        kind = "is a file, not a folder" if paths.is_there(folder) else "does not exist"
        near = _nearest_parent(folder)
        raise DatasetError(
            f"{setting} = {path} {kind}.",
            f"The nearest folder that is there: {near}." if near else "",
            f"Set {setting} to the folder that holds your <repeats>_<word> folders.",
        )
    return folder


def _nearest_parent(folder: Path) -> str:
    for parent in folder.absolute().parents:
        if paths.is_folder(parent):
            return str(parent)
    return ""


def _collect(
    root: Path,
    findings: Findings,
    extension: str,
    setting: str,
    dataset_repeats: int | None,
    *,
    is_reg: bool,
) -> None:
    before = len(findings.images)
    concepts = list(_concepts(root, findings))
    loose = image_files(root)
    endings = (extension, *CAPTION_EXTENSIONS)
    findings.leftover.look(root, loose, endings, deep=False)
    if dataset_repeats and loose:
        # A flat folder has no word; an image without caption file is then trained without words.
        concepts.insert(0, (root, dataset_repeats, ""))
    elif concepts and loose:
        findings.notices.append(
            f"{len(loose)} images lie directly in {setting} = {root} and are not used; move them "
            "into a <repeats>_<word> folder, or set dataset_repeats to use them too"
        )
    for folder, repeats, word in concepts:
        files = image_files(folder)
        if folder != root:
            findings.leftover.look(folder, files, endings, deep=True)
        if not files:
            findings.notices.append(f"{folder.name} holds no images and is skipped")
        for path in files:
            add_image(path, findings, extension, folder.name, repeats, word, is_reg=is_reg)
    if len(findings.images) == before:
        raise _nothing_found(root, setting, loose, findings)


def _concepts(root: Path, findings: Findings) -> Iterator[tuple[Path, int, str]]:
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        match = CONCEPT.match(folder.name)
        if match and int(match[1]) >= 1:
            yield folder, _believable(int(match[1]), folder), match[2]
        elif folder.name.startswith("."):
            continue
        elif not image_files(folder):
            findings.leftover.add_folder(folder)
        else:
            findings.notices.append(
                f"{folder.name} is skipped: its name does not begin with a number of repeats (1 or "
                f"more), such as 10_{NUMBERED.sub('', folder.name)}"
            )


def _believable(repeats: int, folder: Path) -> int:
    if repeats <= MOST_REPEATS:
        return repeats
    raise DatasetError(
        f"The images of {folder} would be repeated {repeats} times.",
        f"The number before the first underscore is the repeats, from 1 to {MOST_REPEATS}.",
        f"Rename the folder, for example to 10_{folder.name}.",
    )


def add_image(
    path: Path,
    findings: Findings,
    extension: str,
    folder: str,
    repeats: int,
    word: str,
    *,
    is_reg: bool,
    subset: int = 0,
) -> None:
    """Measure an image, find its caption, and put it to the others or to those left out."""
    size = findings.size_of(path)
    if size is None:
        return
    caption, found = find_caption(path, extension)
    if caption is None:
        caption = word
        findings.without_caption.append(path.name)
    elif found != extension:
        findings.other_extension[found] = findings.other_extension.get(found, 0) + 1
    findings.images.append(TrainImage(path, *size, caption, folder, repeats, is_reg, subset))


def caption_file(path: Path, extension: str) -> Path | None:
    """The file in which an image's caption stands: the settings' extension before the others."""
    endings = dict.fromkeys((extension, *CAPTION_EXTENSIONS))
    return next((file for end in endings if paths.is_file(file := path.with_suffix(end))), None)


def find_caption(path: Path, extension: str) -> tuple[str | None, str]:
    """The caption file's lines, and the extension under which it was found."""
    file = caption_file(path, extension)
    if file is None:
        return None, ""
    try:
        lines = read_text(file, most=LONGEST_CAPTION).strip().splitlines()
    except Unreadable as error:
        raise DatasetError(f"The caption file {file} {error.why}.", do=error.do) from error
    text = "\n".join(line.strip() for line in lines if line.strip())
    return text, file.name.removeprefix(path.stem)


def told(
    findings: Findings,
    extension: str,
    *,
    instead: str = "the folder's word is the caption",
    words: str = "",
) -> Iterator[str]:
    """What is worth knowing of a scan.

    instead: what becomes of images without a caption file. words: what stands around every caption.
    """
    yield from findings.notices
    if findings.broken:
        yield f"{_counted(findings.broken, 'broken image')} skipped: {_listed(findings.broken)}"
    if findings.too_large:
        yield _told_too_large(findings)
    if left := findings.leftover.told():
        yield f"not used: {left}"
    if more := _more_than_the_reference(findings):
        yield more
    for ending, count in findings.other_extension.items():
        yield f"{count} captions are read from {ending} files, as there are none with {extension}"
    if findings.without_caption:
        names = _listed(findings.without_caption)
        count = len(findings.without_caption)
        whole = (
            "no image has a caption file"
            if count == len(findings.images)
            else (f"{_counted(findings.without_caption, 'image')} without a caption file")
        )
        yield f"{whole}; {instead}: {names}"
    empty = [image.path.name for image in findings.images if not image.caption]
    if empty:
        how = f"with these words alone, {words!r}" if words else "without any words"
        yield f"{_counted(empty, 'image')} trained {how}: {_listed(empty)}"


def _told_too_large(findings: Findings) -> str:
    most = findings.most_pixels / 1e6
    return (
        f"{_counted(findings.too_large, 'image')} of more than {most:.0f} megapixels left out (the "
        "limit is 400, or what a quarter of the free memory holds); scale them down to use them: "
        f"{_listed(findings.too_large)}"
    )


def _more_than_the_reference(findings: Findings) -> str:
    """Which images sd-scripts would pass over, so that its epoch has fewer steps; "" for none."""
    endings = [image.path.suffix for image in findings.images]
    others = Counter(
        ending
        for ending in endings
        if ending.lower() not in REFERENCE or ending not in (ending.lower(), ending.upper())
    )
    if findings.are_named or not others:
        return ""
    kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
    return (
        f"{others.total()} of {len(endings)} images are of kinds that sd-scripts passes over "
        f"({kinds}): with them an epoch has more steps than there"
    )


def _counted(names: list[str], noun: str) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _nothing_found(root: Path, setting: str, loose: list[Path], findings: Findings) -> DatasetError:
    possible = f"Images lie in folders named <repeats>_<word>, e.g. {root / '10_cat' / '001.png'}."
    if findings.broken or findings.too_large:
        why = [*findings.broken, *(f"{name} is too large" for name in findings.too_large)]
        return DatasetError(
            f"No usable image under {setting} = {root}: {_listed(why)}.",
            f"{READABLE} The largest have {findings.most_pixels / 1e6:.0f} megapixels.",
            "Replace the broken files, or scale the large ones down.",
        )
    if loose and CONCEPT.match(root.name):
        return DatasetError(
            f"{setting} = {root} is itself a <repeats>_<word> folder, one level too deep.",
            f"{setting} is the folder that holds such folders.",
            f"Set {setting} to {root.parent}.",
        )
    if inner := _with_concepts_inside(root):
        return DatasetError(
            f"No <repeats>_<word> folder under {setting} = {root}, but in its folder {inner.name}.",
            possible,
            f"Set {setting} to {inner}.",
        )
    if loose:
        return DatasetError(
            f"No <repeats>_<word> folder under {setting} = {root}, but {len(loose)} images "
            "directly in it.",
            possible,
            f"Move them into a folder such as {root / '10_cat'}, or set dataset_repeats = 10 to "
            "use the flat folder as it is.",
        )
    left = findings.leftover.told()
    lies = f" What lies there: {left}." if left else ""
    if CONCEPT.match(root.name) is None and findings.notices:
        return DatasetError(
            f"No images under {setting} = {root} in folders with a number of repeats.{lies}",
            possible,
            "; ".join(findings.notices),
        )
    return DatasetError(
        f"No images under {setting} = {root}.{lies}",
        f"{possible} {READABLE}",
        "Put images there.",
    )


def _with_concepts_inside(root: Path) -> Path | None:
    """The folder that was probably meant where the one above it was given."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        inside = (path for path in folder.iterdir() if path.is_dir() and CONCEPT.match(path.name))
        if any(image_files(path) for path in inside):
            return folder
    return None
