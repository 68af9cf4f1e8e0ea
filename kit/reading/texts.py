"""Texts, JSON and TOML of any origin: what they hold, or in words why they cannot be read.

What a file may do to a reader is bounded here: its size, how deep it is nested, a key that stands
twice, half a character. Our own files (run.json, events.jsonl) come through the same door, since a
disk or an editor may have damaged them.
"""

from __future__ import annotations

import json
import re
import stat
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from kit.errors import Unreadable

LARGEST = 512_000_000  # bytes: what describes 100,000 images has 50 million
LARGEST_TOML = 8_000_000  # bytes; tomllib reads about 2 million in a second
DEEPEST = 100  # levels; Python's own limit is 1000, and repr, copy and dumps have to come back, too
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that may be half a character
# A key of so many parts, a.a.a.a: tomllib needs time by its square. No sentence is written so.
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
DOTTED = re.compile(rf"(?<![\w-])(?:{_PART}[ \t]*+\.[ \t]*+){{{DEEPEST}}}")
PIPES = ("/dev/", "/proc/")  # `kit plan <(...)` and /dev/stdin


def read_text(path: Path, *, possible: str = "", do: str = "", most: int = LARGEST) -> str:
    """A file's text in UTF-8, with or without a byte order mark.

    possible, do: parts of the message.

    Raises: Unreadable where it is missing, locked, no file, no such text, or larger than `most`.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not (stat.S_ISFIFO(mode) and str(path).startswith(PIPES)):
            kind = "a folder" if stat.S_ISDIR(mode) else "a device"
            raise Unreadable(path, f"is {kind}, and no file", possible, do)
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise Unreadable(path, f"cannot be read ({why})", possible, do) from error
    if len(data) > most:
        why = f"is larger than {most / 1e6:.0f} MB, and cannot be what is meant"
        raise Unreadable(path, why, possible, do)
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        why = f"is not UTF-8 text ({error.reason} at byte {error.start})"
        raise Unreadable(path, why, possible, do or "Save it as UTF-8 in your editor.") from error


def from_json(text: str | bytes, what: object, *, possible: str = "", do: str = "") -> Any:
    """What a text in JSON holds; what: it, in a message.

    NaN and Infinity are read, since trainers write them; `Table` refuses them as numbers.

    Raises: Unreadable where it is no JSON, too deep, or names a key twice.
    """
    try:
        plain = text if isinstance(text, str) else text.decode()
        value = _decoder().decode(plain)
        if HALF.search(plain):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Unreadable(
            what, "holds half of a character (a lone surrogate)", possible, do
        ) from error
    except ValueError as error:
        raise Unreadable(what, f"is no JSON ({_in_short(error)})", possible, do) from error
    except RecursionError as error:
        raise Unreadable(what, "is nested too deeply", possible, do) from error
    if _is_deep(value):
        raise Unreadable(what, "is nested too deeply", possible, do)
    return value


def from_toml(text: str, what: object, *, possible: str = "", do: str = "") -> dict[str, Any]:
    """The tables of a text in TOML; what: it, in a message.

    Raises: Unreadable where it is no TOML, or too deep.
    """
    if len(text) > LARGEST_TOML:
        why = f"is larger than {LARGEST_TOML / 1e6:.0f} MB, and cannot be what is meant"
        raise Unreadable(what, why, possible, do)
    try:
        table = {} if DOTTED.search(text) else tomllib.loads(text)
    except ValueError as error:
        raise Unreadable(what, f"is no TOML file ({_in_short(error)})", possible, do) from error
    except RecursionError as error:
        raise Unreadable(what, "is nested too deeply", possible, do) from error
    if (not table and DOTTED.search(text)) or _is_deep(table):
        raise Unreadable(what, "is nested too deeply", possible, do)
    return table


def read_json(path: Path, *, possible: str = "", do: str = "") -> Any:
    """What a JSON file holds.

    Raises: Unreadable, as `read_text` and `from_json`.
    """
    return from_json(read_text(path, possible=possible, do=do), path, possible=possible, do=do)


def read_toml(path: Path, *, possible: str = "", do: str = "") -> dict[str, Any]:
    """The tables of a TOML file.

    Raises: Unreadable, as `read_text` and `from_toml`.
    """
    text = read_text(path, possible=possible, do=do, most=LARGEST_TOML)
    return from_toml(text, path, possible=possible, do=do)


@cache
def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, no key of which stands twice: which of the two would count?"""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice[:80]!r} stands twice in one object")
    return made


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        inner = (
            (
                part
                for each in level
                for part in (each.values() if isinstance(each, dict) else each)
                if isinstance(part, dict | list)
            )
            if isinstance(value, dict | list)
            else ()
        )
        level = list(inner)
        if not level:
            return False
    return True


def _in_short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
