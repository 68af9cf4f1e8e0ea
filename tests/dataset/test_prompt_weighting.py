"""Weights in captions: brackets, numbers, escapes, and what people forget to close."""

import time

import pytest

from kit.dataset.prompt_weighting import parse_emphasis


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("", [("", 1.0)]),
        ("a (cat)", [("a ", 1.0), ("cat", 1.1)]),
        ("a (cat:1.5) b", [("a ", 1.0), ("cat", 1.5), (" b", 1.0)]),
        ("[cat]", [("cat", 1 / 1.1)]),
        ("((cat))", [("cat", 1.1 * 1.1)]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1.0), (" c", 0.5)]),
        (r"\(cat\)", [("(cat)", 1.0)]),
        ("(cat", [("cat", 1.1)]),
        ("cat)", [("cat)", 1.0)]),
        ("a:1.5", [("a:1.5", 1.0)]),
        ("(a:b)", [("a:b", 1.1)]),
    ],
)
def test_brackets_are_weights(text, pieces):
    found = parse_emphasis(text)
    assert [piece for piece, _ in found] == [piece for piece, _ in pieces]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in pieces])


def test_an_escaped_backslash_escapes_nothing_behind_it():
    assert parse_emphasis(r"a \\(b:1.5)") == [("a \\", 1.0), ("b", 1.5)]
    assert parse_emphasis(r"a \(b:1.5\)") == [("a (b:1.5)", 1.0)]


@pytest.mark.parametrize(
    "text",
    ["(a:1.1)" * 150_000, "(a" * 100_000, "[" * 100_000 + "]" * 100_000, "a, " * 300_000],
    ids=["weights", "opened", "nested", "plain"],
)
def test_a_long_caption_is_read_in_time_that_grows_with_it(text):
    # By the square of it these took half a minute and more.
    began = time.monotonic()
    parse_emphasis(text)
    assert time.monotonic() - began < 10


def test_brackets_beyond_the_32nd_are_characters():
    assert parse_emphasis("(" * 40 + "a")[0][0] == "(" * 8 + "a"
    assert parse_emphasis("(" * 32 + "a" + ")" * 32) == [("a", pytest.approx(1.1**32))]


def test_the_number_is_looked_for_at_the_end_alone():
    assert parse_emphasis(f"({'a' * 500}: 1.3 )") == [("a" * 500, 1.3)]
    assert parse_emphasis("(" + "a:2 " * 100 + "b:0.5)") == [("a:2 " * 100 + "b", 0.5)]
