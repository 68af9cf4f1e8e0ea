"""Paths that a person or a file wrote: the home folder filled in, and what is no path refused.

Python's own answer to `~nobody/x` is a RuntimeError, to a NUL a ValueError, to a name that is too
long an OSError, and each at another call. Here all of them are told once, before the path is used.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from kit.errors import Unreadable

LONGEST_NAME = 255  # bytes of one part: ext4, APFS, NTFS (characters there)
LONGEST_PATH = 4096  # bytes of all: Linux' PATH_MAX
HALF = re.compile("[\ud800-\udfff]")
POSSIBLE = "A path is one such as images/10_cat, /home/me/images or ~/images."


def path_of(text: str | Path, name: str = "") -> Path:
    """The path that a text means, its `~` filled in.

    name: of the setting or key that holds it.

    Raises: Unreadable where no file can have that path.
    """
    if why := why_no_path(str(text)):
        shown = shortened(str(text))
        named = f"{name} = {shown}" if name else shown
        raise Unreadable(named, why, POSSIBLE, "Correct the path.")
    return Path(os.path.expanduser(text))  # noqa: PTH111  # pathlib's raises where there is no home


def why_no_path(text: str) -> str:
    """Why no file can have that path, as the end of a sentence; "" where one can."""
    if "\0" in text:
        return "holds a NUL character, which no path can"
    if why := why_no_text(text):
        return why
    whole = os.path.expanduser(text)  # noqa: PTH111
    if whole.startswith("~") and whole.partition("/")[0] == text.partition("/")[0]:
        user = whole.partition("/")[0].removeprefix("~")
        if not os.path.lexists(whole.partition("/")[0]):  # a file that is really called so
            return f"names the home folder of {user or 'this user'}, and there is none"
    parts = whole.replace("\\", "/").split("/") if os.name == "nt" else whole.split("/")
    if max(len(part.encode()) for part in parts) > LONGEST_NAME:
        return f"has a part of more than {LONGEST_NAME} bytes, which no file's name can have"
    if len(os.fsencode(Path(whole).absolute())) >= LONGEST_PATH:
        return f"has more than {LONGEST_PATH} bytes, which no path can have"
    return ""


def why_no_text(text: str) -> str:
    """Why a text cannot be written into a file, as the end of a sentence; "" where it can."""
    if text.isascii() or not HALF.search(text):
        return ""
    return "holds half of a character, and is no UTF-8 text"


def resolved(path: Path) -> Path:
    """The absolute path behind its links; one in a circle stays as it is."""
    return Path(os.path.realpath(path))


def is_there(path: Path) -> bool:
    """There is such a file or folder, and it may be seen."""
    return os.path.exists(path)  # noqa: PTH110  # pathlib's raises where a folder is locked


def is_file(path: Path) -> bool:
    """There is such a file, and it may be seen."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """There is such a folder, and it may be seen."""
    return os.path.isdir(path)  # noqa: PTH112


def shortened(text: str, most: int = 80) -> str:
    """In one line, and not longer than a message bears."""
    plain = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return plain if len(plain) <= most else f"{plain[:most]}..."
