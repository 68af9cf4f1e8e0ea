from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from kit.errors import OutputError
from kit.events import Sampled
from kit.ui.monitor.sheet import MOST_PIXELS, save_sheet, sheet


def grid_of(*drawn):
    samples = {}
    for sample in drawn:
        samples.setdefault(sample.step, {})[sample.index] = sample
    return samples


def colours(picture):
    return {colour for _, colour in picture.getcolors(picture.width * picture.height)}


def test_each_prompt_is_a_row_and_each_step_a_column(picture):
    drawn = [picture(step, i) for step in (0, 10, 20) for i in (0, 1)]
    made = sheet(grid_of(*drawn))
    for sample in drawn:
        assert Image.open(sample.path).getpixel((0, 0)) in colours(made)
    left = {made.getpixel((470 + 392 * column, 100)) for column in range(3)}
    assert len(left) == 3


def test_its_labels_are_drawn(picture):
    made = sheet(grid_of(picture(10)))
    label = made.crop((0, 28, 200, 100))
    assert label.convert("L").getextrema()[0] < 80
    head = made.crop((460, 0, 600, 26))
    assert head.convert("L").getextrema()[0] < 80


def test_a_prompt_that_was_typed_once_leaves_its_other_places_empty(picture):
    made = sheet(grid_of(picture(10), picture(20), replace(picture(15, 1), wished=True)))
    assert made.getpixel((470, 500)) == (255, 255, 255)


@pytest.mark.parametrize("steps", [5, 200])
def test_many_rounds_stay_one_picture_of_moderate_size(picture, steps):
    one = picture(7)
    samples = grid_of(
        *(Sampled(s, i, one.path, f"prompt {i}", 1) for s in range(steps) for i in range(6))
    )
    made = sheet(samples)
    assert made.width * made.height < 1.5 * MOST_PIXELS


def test_other_alphabets_and_long_prompts_are_drawn(picture):
    one = picture(7)
    long = "кот на диване, " * 120
    assert sheet({7: {0: replace(one, prompt=long)}}).height > 28 + 288 + 8


def test_without_a_picture_nothing_is_written(tmp_path):
    gone = Sampled(1, 0, str(tmp_path / "gone.png"), "a cat", 1)
    with pytest.raises(OutputError, match="no sample picture"):
        save_sheet({1: {0: gone}}, tmp_path)
    assert not list(Path(tmp_path).glob("*.jpg*"))
