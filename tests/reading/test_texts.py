"""JSON and TOML of any origin: only Unreadable comes out, and says what is wrong."""

import json
import os
import time

import pytest

from kit.errors import Unreadable
from kit.reading import texts
from kit.reading.texts import from_json, from_toml, read_json, read_text, read_toml


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 150 + "1" + "}" * 150, "nested too deeply"),
        ('{"a": 1, "b": {}, "a": 2}', "'a' stands twice"),
        ('{"a": "\\ud800"}', "half of a character"),
        ("9" * 5000, "is no JSON"),
        (b'{"a": "\xff"}', "is no JSON"),
    ],
)
def test_json_that_cannot_be_taken_is_refused(text, word):
    with pytest.raises(Unreadable, match=word) as caught:
        from_json(text, "x.json", do="Correct it.")
    assert str(caught.value).startswith("x.json ")
    assert caught.value.do == "Correct it."
    assert len(str(caught.value)) < 400


def test_json_that_is_good_is_what_it_was():
    value = {"a": [1, 2.5, None, True, {"é": "🙂"}], "b": {"a": "[" * 500}}
    assert from_json(json.dumps(value), "x") == value
    assert from_json(json.dumps(value).encode(), "x") == value
    assert from_json("NaN", "x") != from_json("NaN", "x")
    assert from_json('"\\ud83d\\ude42"', "x") == "🙂"  # two halves are a whole


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a = ", "is no TOML"),
        ("a = 1\na = 2", "is no TOML"),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("a = " + "[" * 150 + "]" * 150, "nested too deeply"),
        (".".join(["a"] * 150) + " = 1", "nested too deeply"),
    ],
)
def test_toml_that_cannot_be_taken_is_refused(text, word):
    with pytest.raises(Unreadable, match=word):
        from_toml(text, "x.toml")


def test_a_key_of_many_parts_is_refused_at_once():
    # tomllib takes time by the square of them: half a megabyte would be minutes.
    began = time.monotonic()
    for key in ("a." * 250_000 + "a = 1", '"a" . ' * 80_000 + "a = 1", "a" * 900_000 + " = 1"):
        try:
            from_toml(key, "x")
        except Unreadable as error:
            assert "nested too deeply" in str(error)
    assert time.monotonic() - began < 5


def test_text_with_many_full_stops_is_no_deep_key():
    text = "One. Two! " * 500 + "v1.2.3 ..." * 200
    assert from_toml(f'a = "{text}"', "x") == {"a": text}


def test_a_file_that_is_none_is_told(tmp_path):
    for path, word in (
        (tmp_path, "is a folder"),
        (tmp_path / "no", "No such file"),
        (tmp_path / ("n" * 300), "too long"),
    ):
        with pytest.raises(Unreadable, match=word):
            read_text(path)
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(Unreadable, match=r"not UTF-8 text .* at byte 3"):
        read_text(tmp_path / "latin")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unreadable, match="is a device"):
        read_text(tmp_path / "pipe")


def test_what_is_too_large_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("x" * 100)
    with pytest.raises(Unreadable, match="is larger than"):
        read_text(tmp_path / "a", most=99)
    monkeypatch.setattr(texts, "LARGEST_TOML", 10)
    with pytest.raises(Unreadable, match="is larger than"):
        read_toml(tmp_path / "a")


def test_a_mark_in_front_and_other_line_ends_are_no_content(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a":\r\n1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfa = 1\r\nb = 2\r")
    assert read_toml(tmp_path / "a.toml") == {"a": 1, "b": 2}
