"""One reading of captions: the plan counts what the encoders are given."""

import random
import subprocess
import sys
import time
import unicodedata

import ftfy
import pytest
from transformers import CLIPTokenizer

from kit.dataset import tokens

PIECES = [
    *"abz  ,.!'_-():[]\\019é猫好ΣςßİⅧ½²ﬁ\n\t", "\u0131", "the", "quick", "1girl",
    "fox's", "DON'T", "!!", "ΟΔΟΣ", "e\u0301", "\u00a0", "👍🏽", "\u2019s", "“x”",
    "&amp;", "<b>", tokens.END, tokens.START,
]  # fmt: skip


def drawn(rng):
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 40)))


@pytest.mark.parametrize("cut", ["", "!"])
def test_every_text_is_split_as_transformers_does(cut):
    oracle = CLIPTokenizer(
        vocab=tokens.vocabulary(),
        merges=[tuple(merge.split()) for merge in tokens.merges()],
        pad_token=cut or tokens.END,
    )
    rng = random.Random(3)
    for _ in range(1500):
        text = ftfy.fix_text(drawn(rng))
        letters = [chr(rng.choice([rng.randrange(32, 0x500), 0x4E00])) for _ in range(9)]
        text += "".join(letter for letter in letters if unicodedata.category(letter) != "Cn")
        expected = oracle(text, add_special_tokens=False, verbose=False).input_ids
        assert tokens.encode(text, cut=cut) == expected, repr(text)


def test_text_is_mended_as_ftfy_does():
    rng = random.Random(4)
    for _ in range(2000):
        text = drawn(rng)
        assert tokens.mended(text) == ftfy.fix_text(text)


@pytest.mark.parametrize(
    ("caption", "weighted", "cut", "count"),
    [
        ("", False, "", 0),
        ("a photo of a cat", False, "", 5),
        ("(a photo:1.3) of [a cat]", True, "", 5),  # marks are no words
        ("(a photo:1.3) of [a cat]", False, "", 13),
        (r"a cat \(red\)", True, "", 5),
        ("wow!!", False, "", 2),
        ("wow!!", False, "!", 3),
    ],
)
def test_tokens_are_counted_without_the_marks_of_emphasis(caption, weighted, cut, count):
    assert tokens.count(caption, weighted=weighted, cut=cut) == count


def test_what_no_longer_fits_is_told_in_words():
    assert tokens.beyond("a red cat, a blue dog", 4) == "a blue dog"
    assert tokens.beyond("a red cat", 3) == ""
    assert tokens.beyond("(a red:1.2) cat sat", 3, weighted=True) == "sat"


def test_twenty_thousand_captions_are_counted_once_and_kept():
    captions = [f"a photo of a red ball number {i}, on a table, outdoors" for i in range(20_000)]
    expected = [tokens.count(caption) for caption in captions]
    begun = time.perf_counter()
    assert [tokens.count(caption) for caption in captions] == expected
    assert time.perf_counter() - begun < 1  # 0.01 s; counting takes 1.3 s


def test_the_merges_are_not_read_before_a_caption_is():
    code = (
        "import sys, kit; kit.Settings(); import kit.planning, kit.dataset.tokens as t\n"
        "kept = t.vocabulary.cache_info().currsize + t._ranks.cache_info().currsize\n"
        "print(kept, 'regex' in sys.modules, 'ftfy' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert told.split() == ["0", "False", "False"]
