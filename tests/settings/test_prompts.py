import pytest

from kit.errors import SettingsError
from kit.settings.prompts import Prompt, parse_prompt, parse_prompts


def test_a_line_without_options_is_all_prompt():
    assert parse_prompt("a zib ball") == Prompt("a zib ball")


def test_every_option_is_read():
    line = "a zib ball --n blurry, dark --w 512 --h 768 --d 7 --l 6.5 --s 20"
    assert parse_prompt(line) == Prompt("a zib ball", "blurry, dark", 512, 768, 7, 6.5, 20)


def test_options_come_in_any_order_and_case():
    assert parse_prompt("a cat --S 12 --D 3 --N bad") == Prompt("a cat", "bad", seed=3, steps=12)


def test_a_dash_inside_the_words_is_no_option():
    assert parse_prompt("a semi-real cat -- really--good") == Prompt(
        "a semi-real cat -- really--good"
    )


def test_a_line_may_be_options_only():
    assert parse_prompt("--w 512") == Prompt("", width=512)


@pytest.mark.parametrize(("given", "used"), [(513, 512), (519, 512), (64, 64), (1, 64)])
def test_sizes_are_rounded_down_to_multiples_of_8_and_at_least_64(given, used):
    prompt = parse_prompt(f"a cat --w {given} --h {given}")
    assert (prompt.width, prompt.height) == (used, used)


@pytest.mark.parametrize(("given", "used"), [(0, 1), (30, 30), (5000, 1000)])
def test_steps_stay_between_1_and_1000(given, used):
    assert parse_prompt(f"a cat --s {given}").steps == used


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a cat --x 3", "--x is no option; there are --n, --w, --h, --d, --l, --s"),
        ("a cat --w512", "--w512 is no option"),
        ("a cat --w wide", "--w 'wide' is not a whole number of pixels"),
        ("a cat --w", "--w '' is not a whole number of pixels"),
        ("a cat --d 1.5", "--d '1.5' is not a whole number"),
        ("a cat --l high", "--l 'high' is not a number"),
        ("a cat --l nan", "--l 'nan' is not a number"),
    ],
)
def test_an_option_that_cannot_be_read_is_named(line, told):
    with pytest.raises(ValueError) as caught:
        parse_prompt(line)
    assert told in str(caught.value)


def test_blank_lines_and_comments_are_skipped():
    assert parse_prompts("\n a cat \n# a comment\n\na dog\n") == (Prompt("a cat"), Prompt("a dog"))


def test_no_prompts_are_no_error():
    assert parse_prompts("") == parse_prompts(" \n") == ()


def test_every_bad_line_is_told_at_once_with_its_number():
    with pytest.raises(SettingsError) as caught:
        parse_prompts("# prompts\na cat --w x\n\na dog\na bird --q 1")
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "[samples] sample_prompts, line 2",
        "[samples] sample_prompts, line 5",
    ]


def test_prompts_may_lie_in_a_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n# no\na dog --d 3\n", encoding="utf-8-sig")
    assert parse_prompts(f" {path} ") == (Prompt("a cat"), Prompt("a dog", seed=3))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"prompts\.txt cannot be read"):
        parse_prompts(str(tmp_path / "prompts.txt"))


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"a \xff cat")
    with pytest.raises(SettingsError, match=r"prompts\.txt cannot be read"):
        parse_prompts(str(path))
