"""Weights in captions: brackets, numbers, escapes, and what people forget to close."""

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
