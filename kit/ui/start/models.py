"""The menu of base models in the start, and what belongs to the one that is chosen."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from kit import catalog
from kit.basemodel.mismatches import known_of
from kit.settings import Model
from kit.settings.links import tidied

MODEL = "pretrained_model_name_or_path"
OTHER = ""  # the menu's first row
SMALLEST_FOR_BUCKETS = 192  # pixels
EMBEDDED = "Small base to try it out (included)"


@cache
def menu() -> tuple[tuple[str, str], ...]:
    """Titles and values of pretrained_model_name_or_path; the first row is none of them."""
    rows = [(row.title, row.name) for row in catalog.BASE_MODELS if row.name]
    return (("choose one, or type it", OTHER), *rows, (EMBEDDED, embedded()))


def embedded() -> str:
    """The base model that comes with the kit."""
    return str(catalog.load("kit.demo:BASE"))


def in_menu(name: str) -> str:
    """The menu's value for what was typed; OTHER where it has none."""
    row, tidy = catalog.base_model(tidied(name)), tidied(name)
    value = row.name if row else tidy
    return value if value in dict(menu()).values() else OTHER


def title_of(name: str) -> str:
    """What a person calls it: the menu's words, or the file's name."""
    value = in_menu(name)
    titles = {each: title for title, each in menu()}
    return titles[value] if value else Path(tidied(name)).name


def values_of(model: Model) -> dict[str, Any]:
    """Settings that belong to this base model: resolution, prediction; none where it is not known.

    Claims of an earlier choice are taken back: the model itself says of which family it is.
    """
    known = known_of(model)
    if known is None:
        return {}
    values = {"resolution": f"{known.side},{known.side}", "v2": None, "sdxl": None}
    if row := catalog.base_model(tidied(model.pretrained_model_name_or_path)):
        values |= {name: value for name, value in row.values.items() if name != MODEL}
    # Buckets have sides of 64, 128, 192: a picture of 3 : 4 finds none below three of them.
    return values | ({"enable_bucket": False} if known.side < SMALLEST_FOR_BUCKETS else {})
