"""A table is asked by key and type; what is of another type is refused with its key."""

import math
from dataclasses import dataclass

import pytest

from kit.errors import Unreadable
from kit.reading.fields import Table, dataclass_from, kind_of, of_type

VALUES = {
    "whole": 3, "number": 2.5, "text": "a", "flag": True, "table": {"a": "b"}, "wholes": [1, 2],
}  # fmt: skip


def test_values_of_the_type_are_given():
    table = Table(VALUES, "x")
    kinds = ("whole", "number", "text", "flag", "wholes")
    assert [getattr(table, kind)(kind) for kind in kinds] == [3, 2.5, "a", True, (1, 2)]
    assert table.table("table").texts_in() == table.texts("table") == {"a": "b"}
    assert table.number("whole") == 3.0
    assert table.whole("gone", 7) == 7


@pytest.mark.parametrize("kind", ["whole", "number", "text", "flag", "wholes", "texts"])
def test_values_of_another_type_are_refused_with_their_key(kind):
    others = (None, 1.5, math.nan, "x", True, [1.5], [True], {"a": 1}, 10**30, [-1])
    refused = 0
    for value in others:
        try:
            getattr(Table({"k": value}, "x"), kind)("k")
        except Unreadable as error:
            refused += 1
            assert str(error).startswith("x")
    assert refused >= len(others) - 2
    with pytest.raises(Unreadable, match="x lacks gone"):
        getattr(Table({}, "x"), kind)("gone")


def test_bounds_are_kept():
    with pytest.raises(Unreadable, match="a whole number from 0"):
        Table({"k": -1}, "x").whole("k", least=0)
    for value in ([], "a", None, 1):
        with pytest.raises(Unreadable, match="no table"):
            Table(value, "x")


@dataclass(frozen=True)
class Row:
    step: int
    loss: float
    rates: dict[str, float]
    bands: tuple[float | None, ...] = ()


def test_a_record_is_made_of_a_table_of_its_types():
    good = {"step": 1, "loss": 2, "rates": {"unet": 1e-4}, "bands": [None, 0.1]}
    assert dataclass_from(Row, good, "x") == Row(1, 2, {"unet": 1e-4}, (None, 0.1))
    for change in (
        {"step": "1"}, {"step": True}, {"step": 2**70}, {"loss": None}, {"rates": {"unet": "a"}},
        {"rates": []}, {"bands": ["a"]}, {"bands": None}, {"new": 1},
    ):  # fmt: skip
        with pytest.raises(Unreadable):
            dataclass_from(Row, {**good, **change}, "x")
    with pytest.raises(Unreadable, match="incomplete"):
        dataclass_from(Row, {"step": 1}, "x")


def test_a_value_is_shown_in_few_words():
    for value in ("a" * 10_000, 10**5000, [[]] * 1000, {"a": "b" * 9999}, None, ["a" * 500]):
        assert 0 < len(kind_of(value)) < 700
    assert kind_of([1, "a"]) == "[1, 'a']"
    assert of_type(1, float)
    assert not of_type(True, int)
