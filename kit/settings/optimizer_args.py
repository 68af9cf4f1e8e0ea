"""`weight_decay=0.1 betas=0.9,0.99`: a forgiving reader of an optimizer's extra arguments."""

from __future__ import annotations

import ast
import math
import re
from typing import Any

# From a word's start on: tried at each letter, a long word would take time by its square.
ASSIGNMENT = re.compile(r"(?<![A-Za-z_])([A-Za-z_]\w*+)\s*+=\s*")
LONGEST = 10_000  # characters


def parse_optimizer_args(text: str) -> dict[str, Any]:
    """Names and values; spaces, commas and quotes around pairs do not matter.

    Raises: ValueError naming the part that is no name=value.
    """
    cleaned = text.strip().replace('"', "").replace("'", "")
    if not cleaned:
        return {}
    if len(cleaned) > LONGEST:
        raise ValueError(f"it has {len(cleaned)} characters, and can have {LONGEST}")
    matches = list(ASSIGNMENT.finditer(cleaned))
    if not matches or cleaned[: matches[0].start()].strip(" ,;"):
        raise ValueError(f"{text!r} is no name=value; write e.g. weight_decay=0.1 betas=0.9,0.99")
    ends = [match.start() for match in matches[1:]] + [len(cleaned)]
    values: dict[str, Any] = {}
    for match, end in zip(matches, ends, strict=True):
        raw = cleaned[match.end() : end].strip(" ,;")
        if not raw:
            raise ValueError(f"{match[1]} has no value; write {match[1]}=...")
        if match[1] in values:
            raise ValueError(f"{match[1]} is given twice; keep one of them")
        values[match[1]] = _value(raw)
    return values


def _value(raw: str) -> Any:
    """A Python literal or inf; a word stays text."""
    if raw.lower() == "inf":
        return math.inf
    try:
        return ast.literal_eval(
            {"true": "True", "false": "False", "none": "None"}.get(raw.lower(), raw)
        )
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        if any(mark in raw for mark in "()[]{} "):
            raise ValueError(
                f"{raw!r} cannot be read; write numbers, True, False or 0.9,0.99"
            ) from None
        return raw
