"""500 cases of the corpus, and what hypothesis makes up of texts: KitErrors alone come out."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.errors import KitError
from kit.reading.fields import Table
from kit.reading.paths import is_file, is_folder, is_there, path_of, resolved
from kit.reading.texts import from_json, from_toml
from tests.fuzz.readers import READERS
from tests.fuzz.running import run_case

CASES = 500
EACH = -(-CASES // len(READERS))
# The same texts in every run, and no folder of examples beside the sources.
DRAWN = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("reader", READERS)
def test_bad_input_is_refused_in_words(reader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes = [
        run_case(reader, READERS[reader], number, tmp_path / "case") for number in range(EACH)
    ]
    assert [f"{each.name} {each.fault}" for each in outcomes if each.fault] == []


def test_a_traceback_a_changed_file_and_an_empty_word_are_seen(tmp_path):
    def breaks(rng, folder):
        return lambda: {}["x"]

    def changes(rng, folder):
        (folder / "a.txt").write_text("a")
        return lambda: (folder / "a.txt").write_text("b")

    def mute(rng, folder):
        def read():
            raise KitError("")

        return read

    faults = [run_case("x", make, 0, tmp_path / "c").fault for make in (breaks, changes, mute)]
    assert "KeyError" in faults[0]
    assert "a.txt" in faults[1]
    assert "without a message" in faults[2]


def test_what_hangs_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.fuzz.running.MOST_SECONDS", 0.2)

    def hangs(rng, folder):
        return lambda: time.sleep(5)

    assert "not done" in run_case("x", hangs, 0, tmp_path / "c").fault


def test_most_readers_also_take_something(tmp_path, monkeypatch):
    # An input that is always refused at the first door would feed nobody behind it.
    monkeypatch.chdir(tmp_path)
    takes = [
        name
        for name, make in READERS.items()
        if not all(run_case(name, make, n, tmp_path / "case").refused for n in range(EACH))
    ]
    assert len(takes) >= len(READERS) // 2, takes


@DRAWN
@given(st.text())
def test_any_text_is_json_and_toml_or_refused(text):
    for read in (from_json, from_toml):
        try:
            read(text, "x")
        except KitError as error:
            assert str(error).startswith("x ")


@DRAWN
@given(st.text(st.characters(), max_size=40) | st.binary(max_size=40).map(os.fsdecode))
def test_any_text_is_a_path_or_refused(text):
    try:
        path = path_of(text, "setting")
    except KitError as error:
        assert str(error).startswith("setting = ")
        return
    assert isinstance(path, Path)
    for ask in (is_there, is_file, is_folder):
        assert ask(path) in (True, False)
    resolved(path)


@DRAWN
@given(JSON)
def test_any_table_gives_values_of_the_type_or_refuses(value):
    try:
        table = Table(value, "x")
        for key in table.values:
            for ask in (
                table.whole,
                table.number,
                table.text,
                table.flag,
                table.wholes,
                table.texts,
            ):
                try:
                    ask(key)
                except KitError as error:
                    assert str(error).startswith("x")
    except KitError as error:
        assert not isinstance(value, dict)
        assert str(error).startswith("x is ")
