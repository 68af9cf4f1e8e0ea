import pytest

from kit.dataset.caption_tags import (
    TagStyle,
    holds_word,
    tag_counts,
    tag_style,
    tags_of,
    with_tag,
    with_tags_replaced,
    with_trigger,
    without_tags,
    without_trigger,
)
from kit.settings import Settings

COMMA = TagStyle()
MARKED = TagStyle(",", ";;;", "|||")
WILD = TagStyle(has_wildcards=True)


def test_a_style_is_what_the_settings_say():
    settings = Settings().replace(
        caption_separator=";", keep_tokens_separator="|||", enable_wildcard=True
    )
    assert tag_style(settings.captions) == TagStyle(";", "", "|||", True)
    assert tag_style(Settings().captions) == COMMA


def test_tags_are_counted_by_captions_the_most_frequent_first():
    texts = [("1girl, red hair, red hair", COMMA), ("red hair,  smile ", COMMA), ("", COMMA)]
    assert tag_counts(texts) == [("red hair", 2), ("1girl", 1), ("smile", 1)]


def test_marks_hold_tags_apart_and_braces_hold_them_together():
    assert tags_of("zib ||| red;;;blue, sky", MARKED) == ["zib", "red", "blue", "sky"]
    assert tags_of("a {red, blue|green} ball, sky", WILD) == ["a {red, blue|green} ball", "sky"]
    assert tags_of("a {red, blue}", COMMA) == ["a {red", "blue}"]  # braces mean nothing there
    assert tags_of("{{x}}, a {open, b", WILD) == ["{{x}}", "a {open, b"]


@pytest.mark.parametrize(
    ("text", "tag", "style", "left"),
    [
        ("a, b, c", "a", COMMA, "b, c"),
        ("a, b, c", "b", COMMA, "a, c"),
        ("a, b, c", "c", COMMA, "a, b"),
        ("a,b,c", "b", COMMA, "a,c"),
        ("a, b, a", "a", COMMA, "b"),
        ("a", "a", COMMA, ""),
        ("ab, b", "a", COMMA, "ab, b"),
        ("a, b ||| c, d", "b", MARKED, "a ||| c, d"),
        ("a ||| c, d", "a", MARKED, "||| c, d"),
        ("x, a;;;b, y", "a", MARKED, "x, b, y"),
        ("x, a;;;b, y", "b", MARKED, "x, a, y"),
        ("x, y;;;a ||| b", "a", MARKED, "x, y ||| b"),
        ("a, b\na\nc, a", "a", COMMA, "b\nc"),
    ],
)
def test_a_tag_goes_with_its_separator_and_without_the_marks(text, tag, style, left):
    assert without_tags(text, [tag], style).strip() == left


def test_several_tags_go_at_once():
    assert without_tags("a, b, c, d", ["a", "c"], COMMA) == "b, d"
    assert without_tags("", ["a"], COMMA) == ""


def test_a_tag_is_added_once_to_every_line_at_either_end():
    assert with_tag("a, b\nc", "b", COMMA) == "a, b\nc, b"
    assert with_tag("a", "b", COMMA, in_front=True) == "b, a"
    assert with_tag("", "b", COMMA) == "b"
    assert with_tag("a; c", "b", TagStyle(";")) == "a; c; b"


def test_a_tag_takes_the_place_of_others_once():
    assert with_tags_replaced("a, b, c", ["b"], "x", COMMA) == "a, x, c"
    assert with_tags_replaced("a, b, c", ["a", "c"], "x", COMMA) == "x, b"
    assert with_tags_replaced("a, x, b", ["b"], "x", COMMA) == "a, x"
    assert with_tags_replaced("a ||| b", ["b"], "x", MARKED) == "a ||| x"
    assert with_tags_replaced("a, b", ["b"], "b", COMMA) == "a, b"


def test_a_trigger_word_comes_in_front_of_the_lines_that_lack_it():
    assert with_trigger("on a sofa", "zxdog", COMMA) == "zxdog, on a sofa"
    assert with_trigger("a zxdog dog\nsitting", "zxdog", COMMA) == "a zxdog dog\nzxdog, sitting"
    assert with_trigger("zxdogs", "zxdog", COMMA) == "zxdog, zxdogs"
    assert with_trigger("", "zxdog", COMMA) == "zxdog"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("zxdog, on a sofa", "on a sofa"),
        ("zxdog dog, on a sofa", "dog, on a sofa"),
        ("a photo of zxdog dog", "a photo of dog"),
        ("a photo of zxdog, sitting", "a photo of, sitting"),
        ("zxdogs, zxdog-like", "zxdogs, zxdog-like"),
        ("Zxdog, b, zxdog", "b"),
        ("zxdog", ""),
        ("a, b", "a, b"),
    ],
)
def test_a_trigger_word_goes_where_it_stands_by_itself(text, left):
    assert without_trigger(text, "zxdog", COMMA) == left


def test_adding_and_removing_a_trigger_word_gives_the_caption_back():
    for text in ("on a sofa", "1girl, red hair", "a\nb"):
        assert without_trigger(with_trigger(text, "zib", COMMA), "zib", COMMA) == text


def test_a_word_is_held_as_one_of_its_own():
    assert holds_word("a zx_dog here", "zx dog")
    assert not holds_word("a zxdogs", "zxdog")
    assert holds_word("これは柴犬です", "柴犬")
    assert without_trigger("これは柴犬です", "柴犬", COMMA) == "これは です"
