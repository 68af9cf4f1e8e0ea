"""What a class takes, from its source alone."""

import sys

from kit.reading.classes import Argument, classes_in, is_installed, names_in

SOURCE = """
from math import inf as infinite

class Whole:
    def __init__(self, first, second: int, *, third: float = 1.0): ...

class Open(Whole):
    def __init__(self, **more): ...

other = 1
"""


def test_a_class_tells_its_arguments_and_nothing_is_imported(tmp_path, monkeypatch):
    (tmp_path / "a_package").mkdir()
    (tmp_path / "a_package" / "inner.py").write_text(SOURCE, "utf-8")
    (tmp_path / "a_package" / "star.py").write_text("from os import *\nclass A: ...\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = classes_in("a_package.inner")
    assert found["Whole"].arguments == (
        Argument("first", "", True), Argument("second", "int", True),
        Argument("third", "float", False),
    )  # fmt: skip
    assert (found["Open"].arguments, found["Open"].bases) == (None, ("Whole",))
    assert names_in("a_package.inner") == {"infinite", "Whole", "Open", "other"}
    assert classes_in("a_package.star") is None
    assert classes_in("a_package.nothing") is None
    assert is_installed("a_package") and not is_installed("no_such_package")
    assert "a_package" not in sys.modules
