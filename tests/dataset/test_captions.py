"""Captions at each use: the reference's results and frequencies, its losses put right."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from kit.dataset.captions import (
    CaptionContext,
    cached_caption_at,
    cached_captions,
    caption_at,
    effective_captions,
    fullest_captions,
    varies,
)
from kit.settings import Captions

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "captions.json").read_text("utf-8"))
TAGS = "1girl, red hair, blue eyes, smile, outdoors"


def at(caption, settings, *, epoch=1, step=0, total=100, image=0, turn=0, seed=1):
    return caption_at(
        caption, Captions(**settings), CaptionContext(seed, epoch, step, total, image, turn)
    )


@pytest.mark.parametrize("case", GOLDEN["deterministic"], ids=lambda case: str(case["settings"]))
def test_captions_become_what_the_reference_makes_of_them(case):
    ours = at(
        case["caption"],
        case["settings"],
        epoch=case["epoch"] or 1,
        step=case["step"],
        total=case["max_train_steps"],
    )
    assert ours == case["result"]


@pytest.mark.parametrize("case", GOLDEN["random"], ids=lambda case: str(case["settings"]))
def test_random_captions_are_as_frequent_as_the_references(case):
    count = case["n"]
    drawn = Counter(at(case["caption"], case["settings"], turn=turn) for turn in range(count))
    assert len(drawn) == case["distinct"]
    for text, share in case["examples"]:
        assert drawn[text] / count == pytest.approx(share, abs=0.03)


def test_the_same_moment_reads_the_same_caption():
    settings = {"shuffle_caption": True, "caption_tag_dropout_rate": 0.3}
    assert at(TAGS, settings, epoch=3, turn=2) == at(TAGS, settings, epoch=3, turn=2)
    others = {at(TAGS, settings, epoch=epoch, image=image) for epoch in (1, 2) for image in (0, 1)}
    assert len(others) > 1


def test_the_keep_tokens_mark_is_never_read_unlike_in_the_reference():
    assert at("a, b ||| c", {"keep_tokens_separator": "|||"}) == "a, b, c"


def test_prefix_and_suffix_belong_to_every_line_unlike_in_the_reference():
    settings = {"caption_prefix": "<", "caption_suffix": ">", "enable_wildcard": True}
    drawn = {at("one\ntwo\nthree", settings, turn=turn) for turn in range(50)}
    assert drawn == {"< one >", "< two >", "< three >"}


def test_wildcards_nest_and_doubled_braces_are_braces():
    drawn = {at("a {b|{c|d} x} {{e}}", {"enable_wildcard": True}, turn=t) for t in range(60)}
    assert drawn == {"a b {e}", "a c x {e}", "a d x {e}"}
    assert at("a {b|c}", {}) == "a {b|c}"


def test_without_wildcards_the_first_line_counts():
    assert at("one\ntwo", {}) == "one"
    assert at("", {}) == ""


def test_a_warmup_that_begins_with_more_tags_than_there_are_begins_with_all():
    settings = {"token_warmup_step": 10, "token_warmup_min": 9}
    assert at("a, b", settings, step=0) == "a, b"


def test_every_cached_caption_that_a_use_asks_for_was_encoded():
    settings = Captions(
        shuffle_caption=True, keep_tokens=1, caption_dropout_rate=0.2, cached_caption_variants=5
    )
    kept = cached_captions(TAGS, settings, seed=3, image=4)
    asked = {
        cached_caption_at(TAGS, settings, CaptionContext(3, epoch, epoch, 100, 4, turn))
        for epoch in range(1, 40)
        for turn in range(5)
    }
    assert asked == kept
    assert "" in kept
    assert 3 <= len(kept) <= 6
    assert all(text.startswith("1girl") for text in kept - {""})


@pytest.mark.parametrize("place", ["caption_prefix", "caption_suffix"])
def test_a_wildcard_outside_of_the_caption_is_cached_too(place):
    settings = Captions(enable_wildcard=True, **{place: "{p|q}"})
    kept = cached_captions("x", settings, seed=1, image=0)
    asked = {
        cached_caption_at("x", settings, CaptionContext(1, e, 0, 9, 0, 0)) for e in range(1, 60)
    }
    assert len(kept) == 2
    assert asked <= kept


def test_a_caption_that_never_changes_is_cached_once():
    assert cached_captions(TAGS, Captions(), seed=1, image=0) == {TAGS}
    assert not varies(Captions(), [TAGS])
    assert varies(Captions(enable_wildcard=True), ["{a|b}"])
    assert not varies(Captions(enable_wildcard=True), ["a"])


def test_three_epochs_of_a_caption_can_be_looked_at():
    shown = effective_captions(TAGS, Captions(shuffle_caption=True), seed=1, image=0)
    assert len(shown) == 3
    assert {tuple(sorted(text.split(", "))) for text in shown} == {tuple(sorted(TAGS.split(", ")))}


@pytest.mark.parametrize("text", ["{a|b}" * 100_000, "{a" * 100_000 + "}" * 100_000])
def test_many_wildcards_are_read_in_time_that_grows_with_it(text):
    began = time.monotonic()
    caption_at(text, Captions(enable_wildcard=True), CaptionContext(1, 1, 0, 1, 0, 0))
    fullest_captions(text, Captions(enable_wildcard=True))
    assert time.monotonic() - began < 10


def test_unclosed_and_stray_braces_stay():
    wild = Captions(enable_wildcard=True)
    for text in ("a } b", "{ {a} b", "}{", "{ " * 40 + "a", "{a"):
        closed = text.replace("{a}", "a")
        assert caption_at(text, wild, CaptionContext(1, 1, 0, 1, 0, 0)) == closed
