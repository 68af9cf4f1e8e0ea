"""A foreign value in the type of a setting: texts to numbers, blanks, yes and no."""

from __future__ import annotations

import math
from typing import Any

from kit.settings import Declared

YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
BLANK = ("", "none", "null")


def fitted(declared: Declared, value: Any) -> Any:
    """The value in the setting's own type; what does not fit is left for the setting to refuse.

    None stands for a blank, also where the setting itself allows none.
    """
    if is_blank(value) and value not in declared.choices:
        return None if declared.optional or _kind(declared) != "str" else ""
    if declared.choices:
        return _choice(declared.choices, value)
    if _kind(declared) == "bool":
        return _bool(value)
    if _kind(declared) in ("int", "float"):
        return _number(value, whole=_kind(declared) == "int")
    if isinstance(value, int | float):
        return str(value)
    return value


def is_blank(value: Any) -> bool:
    """Nothing was written."""
    return value is None or (isinstance(value, str) and value.strip().lower() in BLANK)


def is_zero(value: Any) -> bool:
    """A number that is 0; False is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0


def as_number(value: Any) -> float | None:
    """What a text or number is worth; None where it is neither."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _kind(declared: Declared) -> str:
    if declared.choices:
        return type(declared.choices[0]).__name__
    return declared.type if declared.type in ("int", "float", "bool") else "str"


def _choice(choices: tuple[Any, ...], value: Any) -> Any:
    """The choice that is meant, whatever its spelling."""
    for choice in choices:
        number = as_number(value)
        if isinstance(choice, int | float) and number is not None and number == choice:
            return choice
        if isinstance(choice, str) and str(value).strip().lower() == choice.lower():
            return choice
    return value


def _bool(value: Any) -> Any:
    word = str(value).strip().lower()
    if word in YES or word == "1.0":
        return True
    return False if word in NO or word == "0.0" else value


def _number(value: Any, *, whole: bool) -> Any:
    number = as_number(value)
    if number is None:
        return value
    if whole:
        return int(number) if number.is_integer() else value
    return number
