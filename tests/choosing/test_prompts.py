"""What is drawn to compare files: prompts with the subject, and without it."""

import pytest

from kit.choosing.prompts import Concept, class_prompts, other_prompts, subject_prompts

ZIB = Concept.of("10_zib ball")


@pytest.mark.parametrize(
    "folder, word, kind",
    [
        ("10_zib ball", "zib", "ball"),
        ("zib", "zib", ""),
        ("3_sks red fox", "sks", "red fox"),
        ("5_", "", ""),
    ],
)
def test_a_folder_names_subject_and_class(folder, word, kind):
    assert Concept.of(folder) == Concept(word, kind)


@pytest.mark.parametrize(
    "text, without",
    [
        ("a zib ball on a gray background, center", "a ball on a gray background, center"),
        ("zib, 1girl, solo", "1girl, solo"),
        ("1girl, Zib, solo", "1girl, solo"),
        ("zib", ""),
        ("a zibra", ""),  # another word
    ],
)
def test_a_caption_without_its_subject(text, without):
    assert ZIB.left_out_of(text) == without


def test_the_class_is_asked_in_the_captions_own_words():
    captions = ["a zib ball, left", "a zib ball, left", "a zib ball, right"]
    assert class_prompts(captions, [ZIB]) == ("a ball, left", "a ball, right")
    assert class_prompts(["a photograph"], [ZIB]) == ("ball",)
    assert class_prompts(["a photograph"], [Concept("zib")]) == ()


def test_other_prompts_name_no_subject():
    prompts = ["a zib ball", "a red square", "a red square", "  ", "a zibra"]
    assert other_prompts(prompts, [ZIB]) == ("a red square", "a zibra")


def test_few_captions_are_drawn_more_than_once():
    assert subject_prompts(["a", "b"], 5) == ("a", "b", "a", "b", "a")
    assert subject_prompts([], 5) == ()
