"""What of the captions will not be read, told by the plan."""

import time
from pathlib import Path

import pytest

from kit.dataset.images import TrainImage, scan
from kit.dataset.unread import unread, unread_notices
from kit.planning import plan
from kit.settings import Settings
from tests.support.pictures import draw


def image(caption, name="x.png", folder="1_"):
    return TrainImage(Path(folder) / name, 64, 64, caption, folder, 1)


def told(images, **changes):
    return list(unread_notices(images, [Settings().replace(**changes)]))


def red(count):
    """As many tokens."""
    return " ".join(["red"] * count)


def test_the_longest_captions_are_named_with_their_tokens():
    images = [image(red(count), f"{count}.png") for count in (75, 76, 79, 77, 78)]
    assert told(images) == [
        "4 captions have more than 75 tokens, and the rest is not read: the longest: 79.png (79 "
        "tokens), 78.png (78 tokens), 77.png (77 tokens); max_token_length = 150 or 225 reads more"
    ]
    assert told(images, max_token_length=150) == []
    (text,) = told([image(red(300))], max_token_length=225)
    assert text == (
        "1 caption has more than 225 tokens, and the rest is not read: x.png (300 tokens)"
    )


@pytest.mark.parametrize(
    ("caption", "changes", "cut"),
    [
        (red(75), {}, 0),
        (red(74), {"caption_prefix": "a b"}, 1),
        (red(74), {"caption_suffix": "a"}, 0),
        (f"({red(75)}:1.2)", {"weighted_captions": True}, 0),  # the marks have no tokens
        (f"({red(75)}:1.2)", {}, 1),
        (red(74) + " {a|b c d}", {"enable_wildcard": True}, 1),  # the longest choice
        (red(74) + " {a|b}", {"enable_wildcard": True}, 0),
        ("a\n" + red(76), {}, 0),
        ("a\n" + red(76), {"enable_wildcard": True}, 1),  # any line may be drawn
        ("猫" * 40, {}, 1),
    ],
)
def test_what_is_counted_is_what_the_encoder_reads(caption, changes, cut):
    found = unread(caption, Settings().replace(**changes))
    assert found.is_cut == bool(cut)
    assert any("tokens" in text for text in told([image(caption)], **changes)) == bool(cut)


def test_second_lines_are_told():
    images = [image("a\nb", "two.png"), image("a", "one.png")]
    assert told(images) == [
        "1 caption has more than one line, and only the first is read (enable_wildcard draws one "
        "at each use): two.png"
    ]
    assert told(images, enable_wildcard=True) == []
    assert unread("a\nb\nc", Settings()).lines == 2


@pytest.mark.parametrize(
    ("folder", "captions", "missing"),
    [
        ("10_zxdog dog", ["a dog", "a dog runs"], "zxdog"),
        ("10_zxdog dog", ["a dog", "ZxDog runs"], ""),
        ("10_zxdog", ["zxdogs"], "zxdog"),
        ("10_zx_dog", ["a zx dog"], ""),
        ("10_猫 cat", ["黒猫が好き"], ""),
        ("10_", ["a dog"], ""),
    ],
)
def test_a_trigger_word_in_no_caption_is_told(folder, captions, missing):
    texts = told([image(caption, f"{caption}.png", folder) for caption in captions])
    assert [text.split(",")[0] for text in texts] == ([missing] if missing else [])


def test_a_prefix_can_hold_the_trigger_word():
    images = [image("a dog", folder="10_zxdog dog")]
    assert told(images, caption_prefix="zxdog,") == []


def test_the_plan_says_it(tmp_path):
    for name, caption in {"a": red(80), "b": "one\ntwo", "c": None}.items():
        draw(tmp_path / "2_zib ball" / f"{name}.png", (128, 128))
        if caption:
            (tmp_path / "2_zib ball" / f"{name}.txt").write_text(caption, "utf-8")
    asked = Settings().replace(
        train_data_dir=str(tmp_path), output_dir=str(tmp_path / "out"), resolution="128,128"
    )
    notices = plan(asked).notices
    for start in (
        "1 image without a caption file",
        "1 caption has more than 75 tokens, and the rest is not read: a.png (80 tokens)",
        "1 caption has more than one line",
    ):
        assert sum(notice.startswith(start) for notice in notices) == 1
    (tmp_path / "2_zib ball" / "c.png").unlink()
    assert any(notice.startswith("zib, of the folder's name") for notice in plan(asked).notices)


def test_twenty_thousand_captions_take_no_time_at_the_next_key_stroke():
    images = [image(f"{red(80)} {number}", f"{number}.png") for number in range(20_000)]
    settings = [Settings()]
    expected = list(unread_notices(images, settings))
    begun = time.perf_counter()
    assert list(unread_notices(images, settings)) == expected
    assert time.perf_counter() - begun < 2  # 0.2 s


def test_equal_names_in_two_folders_keep_their_captions(tmp_path):
    for folder, caption in {"1_a": "an apple", "2_b": "a boat"}.items():
        draw(tmp_path / folder / "x.png")
        (tmp_path / folder / "x.txt").write_text(caption, "utf-8")
    found = [(i.folder, i.caption, i.repeats) for i in scan(str(tmp_path)).images]
    assert found == [("1_a", "an apple", 1), ("2_b", "a boat", 2)]
