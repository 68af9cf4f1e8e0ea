import json

import pytest

from kit.errors import SettingsError
from kit.settings.prompts import Prompt, parse_prompt, parse_prompts


def test_a_line_without_options_is_all_prompt():
    assert parse_prompt("a zib ball") == Prompt("a zib ball")


def test_every_option_is_read():
    line = "a zib ball --n blurry, dark --w 512 --h 768 --d 7 --l 6.5 --s 20 --ss K_Euler"
    assert parse_prompt(line) == Prompt(
        "a zib ball", "blurry, dark", 512, 768, 7, 6.5, 20, "k_euler"
    )


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
        ("a cat --ss eular", "--ss 'eular' is not a sampler; there are ddim, pndm, lms, euler,"),
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
    with pytest.raises(SettingsError, match=r"prompts\.txt is not UTF-8 text"):
        parse_prompts(str(path))


@pytest.mark.parametrize(
    "option", ["--g 3.5", "--ctr 0.25", "--rcfg 1", "--FS 3", "--cn edges.png"]
)
def test_options_of_other_families_are_skipped_and_named(option):
    prompt = parse_prompt(f"a cat {option} --s 4 --n dark")
    assert prompt == Prompt("a cat", "dark", steps=4)
    assert prompt.skipped == (option.split()[0].lower(),)


EVERYTHING = {
    "prompt": "a zib ball",
    "negative_prompt": "dark",
    "width": 515,
    "height": 768,
    "seed": 7,
    "scale": 6.5,
    "sample_steps": 20,
    "sample_sampler": "euler",
}
READ = Prompt("a zib ball", "dark", 512, 768, 7, 6.5, 20, "euler")


def written(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def test_a_json_file_holds_lines_or_keys(tmp_path):
    entries = [EVERYTHING, "a cat --d 3", {"prompt": "a dog", "seed": None, "flow_shift": 3.0}]
    prompts = parse_prompts(written(tmp_path, "p.json", json.dumps(entries)))
    assert prompts == (READ, Prompt("a cat", seed=3), Prompt("a dog"))
    assert [prompt.skipped for prompt in prompts] == [(), (), ("flow_shift",)]


def test_a_toml_file_holds_what_all_have_and_what_each_has(tmp_path):
    text = """
        [prompt]
        prompt = "a zib ball"
        width = 515
        height = 768
        seed = 7
        scale = 6.5
        sample_sampler = "euler"
        negative_prompt = "blurry"
        guidance_scale = 3.5
        [[prompt.subset]]
        negative_prompt = "dark"
        sample_steps = 20
        [[prompt.subset]]
        prompt = "a cat"
    """
    first, second = parse_prompts(written(tmp_path, "p.TOML", text))
    assert first == READ
    assert second == Prompt("a cat", "blurry", 512, 768, 7, 6.5, 30, "euler")
    assert first.skipped == ("guidance_scale",)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("p.json", '{"prompt": "a cat"}', "it is no list of prompts"),
        ("p.json", "[", "Expecting value"),
        ("p.json", "[" * 100_000, "nested too deeply"),
        ("p.json", "[3]", "3 is no prompt"),
        ("p.json", '["a cat --w x"]', "p.json, prompt 1: --w 'x' is not a whole number"),
        ("p.json", '["a cat", {"prompt": 3}]', "p.json, prompt 2: prompt: 3 is no text"),
        ("p.json", '[{"width": 51.5}]', "width 51.5 is not a whole number of pixels"),
        ("p.json", '[{"width": true}]', "width True is not a whole number of pixels"),
        ("p.json", '[{"negative_prompt": 3}]', "negative_prompt 3 is not text"),
        ("p.json", '[{"scale": NaN}]', "scale nan is not a number"),
        ("p.json", '[{"steps": 3}]', "steps: is no key of a prompt; there are prompt, negative_"),
        ("p.toml", 'prompt = "a cat"', "it has no [[prompt.subset]]"),
        ("p.toml", '[prompt]\nprompt = "a cat"', "it has no [[prompt.subset]]"),
        ("p.toml", "[prompt]\nsubset = [3]", "3 is no prompt"),
        ("p.toml", "x = ", "Invalid value"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path, name, text, told):
    with pytest.raises(SettingsError) as caught:
        parse_prompts(written(tmp_path, name, text))
    assert told in str(caught.value)
    assert "sample_prompts" in str(caught.value)
