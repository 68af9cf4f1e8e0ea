"""Picture files: which kinds are read, by which plug-in, how large they are, which are whole."""

from __future__ import annotations

import importlib
import struct
import threading
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError, features

from kit.hosts import free_memory

ALWAYS = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
# The endings that sd-scripts looks for, all in lower or all in upper case.
REFERENCE = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
MOST_PIXELS = 400_000_000
# Four bytes a pixel in a quarter of the free memory: while a picture is turned, laid on white and
# made RGB, up to 15 bytes a pixel are in use.
BYTES_OF_FREE_MEMORY = 16
EXIF_ORIENTATION = 0x0112
TURNED = frozenset({5, 6, 7, 8})  # orientations that swap width and height
END_MARKS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND"}  # of JPEG and PNG
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
# What damaged files make Pillow and its plug-ins raise, at opening or at loading.
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError,
    ArithmeticError, MemoryError, struct.error,
)  # fmt: skip
_opening = threading.Lock()


@dataclass(frozen=True)
class PlugIn:
    """A package that teaches Pillow a format."""

    package: str  # what pip calls it
    module: str
    register: str = ""  # the function that does it; blank: importing is enough


HEIF = (PlugIn("pillow-heif", "pillow_heif", "register_heif_opener"),)
PLUG_INS = {
    ".avif": (PlugIn("pillow-avif-plugin", "pillow_avif"),),  # where Pillow is built without it
    ".heic": HEIF,
    ".heif": HEIF,
    ".jxl": (
        PlugIn("pillow-jxl-plugin", "pillow_jxl"),
        PlugIn("jxlpy", "jxlpy.JXLImagePlugin"),
    ),
}


def readable(endings: Collection[str]) -> set[str]:
    """Those of the endings, in lower case with their dot, whose files can be read here and now."""
    return {ending for ending in endings if ending in ALWAYS or _is_taught(ending)}


def _is_taught(ending: str) -> bool:
    if ending == ".avif" and features.check("avif"):
        return True
    return any(find_spec(plug.module.split(".")[0]) for plug in PLUG_INS.get(ending, ()))


READABLE = (
    "PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF and HEIC files can be read."
    if _is_taught(".heic")
    else "PNG, JPEG, WebP, BMP, GIF, TIFF and AVIF files can be read, HEIC with pillow-heif."
)


def remedy(ending: str) -> str:
    """What would make files of this ending readable, in words; "" where nothing is known to."""
    plug_ins = PLUG_INS.get(ending)
    return f"`pip install {plug_ins[0].package}` reads them" if plug_ins else ""


def image_files(folder: Path) -> list[Path]:
    """Its images by name; names with a dot in front are hidden, such as macOS's "._" files."""
    seen = [path for path in folder.iterdir() if not path.name.startswith(".")]
    endings = readable({path.suffix.lower() for path in seen})
    return sorted(path for path in seen if path.suffix.lower() in endings and path.is_file())


def opened(path: Path) -> Image.Image:
    """The picture with its header read, its pixels not yet; to be closed by the caller.

    Pillow's own guard against pictures of more than 89 megapixels is off while the header is read:
    it warns of photographs of 108 and refuses those of 200. `measure` and the scan ask ours.

    Raises: one of UNREADABLE where it is no picture that can be read.
    """
    _teach(path.suffix.lower())
    try:
        return _opened_unguarded(path)
    except UnidentifiedImageError:
        # Telephones' HEIC files are often sent on under the name of a JPEG.
        if not _teach(_ending_by_content(path)):
            raise
        return _opened_unguarded(path)


def _opened_unguarded(path: Path) -> Image.Image:
    with _opening:
        guard, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = guard


def _teach(ending: str) -> bool:
    """Load the first plug-in for an ending that is installed; whether there is one."""
    for plug in PLUG_INS.get(ending, ()):
        if find_spec(plug.module.split(".")[0]) is None:
            continue
        try:
            module = importlib.import_module(plug.module)
        except ImportError as error:
            raise OSError(f"{plug.package} is installed, but cannot be loaded: {error}") from error
        if plug.register:
            getattr(module, plug.register)()
        return True
    return False


def _ending_by_content(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if head.startswith(JPEG_XL):
        return ".jxl"
    if head[4:8] == b"ftyp":
        return ".avif" if head[8:12] in (b"avif", b"avis") else ".heic"
    return ""


def most_pixels() -> int:
    """The largest picture that is used: 400 megapixels, or what a quarter of free memory holds."""
    return min(MOST_PIXELS, free_memory() // BYTES_OF_FREE_MEMORY)


EMPTY, CUT_OFF, NO_PICTURE = "empty file", "cut off before its end", "not a picture"
DAMAGED = frozenset({EMPTY, CUT_OFF, NO_PICTURE})  # what no other version of Pillow would read


def measure(path: Path) -> tuple[int, int] | str:
    """Width and height as seen, or, in words, why the file cannot be used."""
    stat = path.stat()
    return _measured(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=100_000)
def _measured(path: Path, _changed: int, size: int) -> tuple[int, int] | str:
    """Kept per path, time and size: the plan is drawn again at every key stroke of the form."""
    if size == 0:
        return EMPTY
    try:
        if not _is_whole(path, size):
            return CUT_OFF
        with opened(path) as image:
            (width, height), orientation = image.size, orientation_of(image)
            if image.mode == "LAB":
                return "colours in Lab; save it as RGB"
    except UnidentifiedImageError:
        return NO_PICTURE
    except UNREADABLE as error:
        return str(error) or type(error).__name__
    return (height, width) if orientation in TURNED else (width, height)


def orientation_of(image: Image.Image) -> int:
    """How the picture has still to be turned: 1 not at all, 2 to 8 as EXIF numbers them.

    Ask before its pixels are loaded. Pillow turns a TIFF by itself when it loads it, and tells the
    turned size, but not the orientation 1, before.
    """
    if image.format == "TIFF":
        return 1
    # Not image.getexif(): that of a PNG without EXIF data decodes all of its pixels first.
    orientation: int = Image.Image.getexif(image).get(EXIF_ORIENTATION, 1)
    return orientation


def _is_whole(path: Path, size: int) -> bool:
    """The file reaches as far as its own marks say; reading all pixels would take minutes."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WEBP":
            return size >= int.from_bytes(head[4:8], "little") + 8
        if head[4:8] == b"ftyp":
            is_whole = _end_of_boxes(file, size) <= size
        elif head[:2] == b"BM":
            is_whole = int.from_bytes(head[2:6], "little") <= size
        elif head[:4] in TIFF:
            is_whole = _end_of_strips(path) <= size
        else:
            file.seek(max(0, size - 64 * 1024))
            is_whole = _has_end_mark(head, file.read())
    # Cameras and editors append data, phones whole videos; only then are the pixels read.
    return is_whole or _can_be_decoded(path)


def _has_end_mark(head: bytes, tail: bytes) -> bool:
    if head[:4] == b"GIF8":
        return tail.rstrip(b"\0").endswith(b";")
    mark = next((end for start, end in END_MARKS.items() if head.startswith(start)), b"")
    return mark in tail  # a search, not a comparison: there may be something behind


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Where the last box of an AVIF or HEIC file ends, which may be behind the file's end."""
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a longer number follows the name
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # to the end of the file
            return size
        at += max(length, 8)
    return at


def _end_of_strips(path: Path) -> int:
    """Where the last strip or tile of a TIFF ends."""
    with opened(path) as image:
        tags = getattr(image, "tag_v2", {})
        starts = tags.get(273) or tags.get(324) or (0,)
        lengths = tags.get(279) or tags.get(325) or (0,)
    return max(int(start + length) for start, length in zip(starts, lengths, strict=False))


def _can_be_decoded(path: Path) -> bool:
    try:
        with opened(path) as image:
            if image.width * image.height <= most_pixels():
                image.load()
    except UNREADABLE:
        return False
    return True
