"""A table of a file, asked by key and type: "step, a whole number from 0".

record = Table(read_json(path), path)
record.text("fingerprint"), record.whole("step", 0)
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

from kit.errors import Unreadable

GREATEST = 2**63 - 1  # what a file's whole number may be
_NEEDED: Any = object()


class Table:
    """One JSON object or TOML table whose values must be of a type."""

    def __init__(self, values: Any, what: object) -> None:
        """what: it is, in a message.

        Raises: Unreadable where it is something else than a table.
        """
        self.what = str(what)
        if not isinstance(values, dict):
            raise Unreadable(what, f"is {kind_of(values)}, and no table of keys and values")
        self.values: dict[str, Any] = values

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def whole(
        self, key: str, default: int = _NEEDED, *, least: int = -GREATEST, most: int = GREATEST
    ) -> int:
        """A whole number; the default where the key is absent.

        Raises: Unreadable where it is something else, or absent without a default.
        """
        value = self._value(key, default)
        if type(value) is not int or not least <= value <= most:
            start = f" from {least}" if least > -GREATEST else ""
            raise self._wrong(key, value, f"a whole number{start}")
        return value

    def number(self, key: str, default: float = _NEEDED) -> float:
        """A finite number.

        Raises: as `whole`.
        """
        value = self._value(key, default)
        if type(value) not in (int, float) or not math.isfinite(_as_float(value)):
            raise self._wrong(key, value, "a number")
        return float(value)

    def text(self, key: str, default: str = _NEEDED) -> str:
        """A text.

        Raises: as `whole`.
        """
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def flag(self, key: str, default: bool = _NEEDED) -> bool:
        """True or false.

        Raises: as `whole`.
        """
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def table(self, key: str, default: dict[str, Any] = _NEEDED) -> Table:
        """A table within this one.

        Raises: as `whole`.
        """
        value = self._value(key, default)
        if not isinstance(value, dict):
            raise self._wrong(key, value, "a table")
        return Table(value, f"{self.what}: {key[:80]}")

    def wholes(self, key: str, default: list[int] = _NEEDED, *, least: int = 0) -> tuple[int, ...]:
        """A list of whole numbers, such as a shape.

        Raises: as `whole`.
        """
        value = self._value(key, default)
        if not isinstance(value, list) or any(
            type(each) is not int or not least <= each <= GREATEST for each in value
        ):
            raise self._wrong(key, value, f"a list of whole numbers from {least}")
        return tuple(value)

    def texts(self, key: str, default: dict[str, Any] = _NEEDED) -> dict[str, str]:
        """A table of texts; null is an empty one.

        Raises: as `whole`.
        """
        value = self._value(key, default)
        return Table({} if value is None else value, f"{self.what}: {key[:80]}").texts_in()

    def texts_in(self) -> dict[str, str]:
        """All of its values, which are texts.

        Raises: Unreadable at one that is none.
        """
        return {key: self.text(key) for key in self.values}

    def tables(self) -> Iterator[tuple[str, Table]]:
        """Each key, with the table that it holds.

        Raises: Unreadable at one that holds something else.
        """
        for key in self.values:
            yield key, self.table(key)

    def _value(self, key: str, default: Any) -> Any:
        if key in self.values:
            return self.values[key]
        if default is _NEEDED:
            raise Unreadable(self.what, f"lacks {key}")
        return default

    def _wrong(self, key: str, value: Any, wanted: str) -> Unreadable:
        return Unreadable(self.what, f"has {kind_of(value)} as {key[:80]}, which is {wanted}")


Made = TypeVar("Made")
_TYPES: dict[type, dict[str, Any]] = {}  # of dataclasses' fields


def dataclass_from(kind: type[Made], values: Any, what: object) -> Made:
    """A dataclass out of a file's table, whose keys are its fields.

    Raises: Unreadable where a value is of another type, or a field too few or too many.
    """
    table = Table(values, what).values
    if kind not in _TYPES:
        _TYPES[kind] = typing.get_type_hints(kind)
    types_of = _TYPES[kind]
    for name, value in table.items():
        if name not in types_of:
            raise Unreadable(what, f"has {name[:80]!r}, which this version does not know")
        if not of_type(value, types_of[name]):
            raise Unreadable(what, f"has {kind_of(value)} as {name[:80]}")
    try:
        return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in table.items()})
    except TypeError as error:
        raise Unreadable(what, f"is incomplete ({error})") from error


def of_type(value: Any, kind: Any) -> bool:
    """Whether a value that JSON gave is of an annotated type; a list stands for a tuple.

    kind: int, float, str, bool, None, object, or a dict, tuple or union of such.
    """
    if kind is float:
        return type(value) is float or of_type(value, int)
    if kind is int:
        return type(value) is int and -GREATEST <= value <= GREATEST
    inner = typing.get_args(kind)
    if not inner:
        return isinstance(value, kind)
    if isinstance(kind, types.UnionType):
        return any(of_type(value, each) for each in inner)
    if typing.get_origin(kind) is dict:
        return isinstance(value, dict) and all(of_type(each, inner[1]) for each in value.values())
    return isinstance(value, list | tuple) and all(of_type(each, inner[0]) for each in value)


def kind_of(value: Any) -> str:
    """What a value is, for a message: short, whatever it holds."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool | int | float | str):
        shown = (
            repr(value) if not isinstance(value, int) or value.bit_length() < 200 else "a number"
        )
        return shown if len(shown) <= 60 else f"{shown[:60]}..."
    if isinstance(value, list | tuple):
        if 0 < len(value) <= 8 and all(type(each) in (bool, int, float, str) for each in value):
            return f"[{', '.join(map(kind_of, value))}]"
        return "a list"
    return "a table" if isinstance(value, dict) else type(value).__name__


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
