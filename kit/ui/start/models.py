"""The menu of base models in the start, and what is said of the one that is chosen."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from kit import catalog

OTHER = ""  # the menu's first row
SMALLEST_FOR_BUCKETS = 192  # pixels
EMBEDDED = "Small base that comes with LoRA Kit (to try it out)"


@cache
def menu() -> tuple[tuple[str, str], ...]:
    """Titles and values of pretrained_model_name_or_path; the first row is none of them."""
    picks = [(name, name) for name in catalog.QUICK_PICKS]
    return (("choose one, or type it", OTHER), *picks, (EMBEDDED, embedded()))


def embedded() -> str:
    """The base model that comes with the kit."""
    return str(catalog.load("kit.demo:BASE"))


def title_of(name: str) -> str:
    """What a person calls it: the menu's words, or the file's name."""
    titles = {value: title for title, value in menu()}
    return titles.get(name.strip(), Path(name.strip()).name) if name.strip() else ""


def family_for(name: str, found: str) -> str:
    """The family: found in the file or claimed, or else that of the menu's row."""
    return found or catalog.QUICK_PICKS.get(name.strip(), "")


def facts_of(name: str, family: str) -> str:
    """`Stable Diffusion XL, made for 1024 x 1024`; "" where the family is not known."""
    if not name.strip() or not family:
        return ""
    row = catalog.FAMILIES[family]
    side = own_side(name) or row.native_size
    return f"{row.label}, made for {side} x {side}"


def values_of(name: str) -> dict[str, Any]:
    """Settings that belong to this base model: the resolution that it was made for."""
    side = own_side(name)
    values: dict[str, Any] = {"resolution": f"{side},{side}"} if side else {}
    # Buckets have sides of 64, 128, 192: a picture of 3 : 4 finds none below three of them.
    return values | ({"enable_bucket": False} if 0 < side < SMALLEST_FOR_BUCKETS else {})


def own_side(name: str) -> int:
    """The side that a diffusers folder says it was made for; 0 where it says nothing."""
    try:
        text = (Path(name.strip()).expanduser() / "unet" / "config.json").read_text("utf-8")
        return 8 * int(json.loads(text).get("sample_size") or 0)
    except (OSError, ValueError, TypeError, AttributeError):  # some configs hold two sides
        return 0
