import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kit.events import Validated
from kit.ui.charts import (
    COLOURS,
    HEIGHT,
    HELD_OUT,
    LEFT,
    TOP,
    WIDTH,
    lines_chart,
    loss,
    loss_chart,
    nice_ticks,
    smoothed,
    validation_by_noise_level,
)
from kit.ui.monitor.history import History
from tests.ui.runs import whole_run

SNAPSHOT = Path(__file__).parents[1] / "golden" / "loss_chart.svg"


def points_of(svg):
    """All corners of all curves."""
    for shape in re.findall(r'points="([^"]*)"', svg):
        yield from (tuple(map(float, point.split(","))) for point in shape.split())


def wave(count):
    return [0.1 + 0.05 * math.sin(i / 3) for i in range(count)]


def test_the_drawing_is_what_it_was():
    """To accept a new look, write the new text to the file named by SNAPSHOT and look at it."""
    assert loss_chart(range(1, 13), wave(12)) == SNAPSHOT.read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("count", [1, 2, 3, 49, 50, 600, 601, 5000, 30_000])
def test_every_length_gives_a_small_valid_picture(count):
    svg = loss_chart(range(1, count + 1), wave(count))
    ElementTree.fromstring(svg)
    assert len(svg) < 16_000
    assert len(re.findall(r"[\d.]+,[\d.]+", svg)) <= 2 * 600
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points_of(svg))


def test_no_step_means_no_picture():
    assert loss_chart([], []) == ""
    assert loss_chart([1], [math.nan]) == ""


def test_losses_that_are_not_finite_are_left_out():
    svg = loss_chart([1, 2, 3, 4], [0.2, math.nan, math.inf, 0.1])
    assert "nan" not in svg
    assert "inf" not in svg
    assert "0.1 at step 4" in svg


def test_a_single_spike_in_a_long_run_is_not_lost_and_flattens_nothing():
    losses = wave(5000)
    losses[2500] = 40.0
    svg = loss_chart(range(1, 5001), losses)
    assert ">0.15<" in svg
    assert ">40<" not in svg
    assert min(y for x, y in points_of(svg)) == TOP


def test_equal_losses_make_a_line_in_the_middle():
    assert loss_chart([1, 2, 3], [0.0, 0.0, 0.0])
    svg = loss_chart([1, 2, 3], [0.1, 0.1, 0.1])
    assert all(TOP < y < HEIGHT and x >= LEFT for x, y in points_of(svg))


def test_it_is_readable_in_light_and_dark():
    """No black, white or grey of its own: the text's colour, and one blue that suits both."""
    svg = loss_chart(range(1, 100), wave(99))
    colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', svg))
    assert colours == {"currentColor", "none", "#2f7ae5"}


def test_it_says_its_last_value_to_a_screen_reader():
    assert 'role="img" aria-label="Loss, 0.1 at step 1' in loss_chart([1], [0.1])


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 0.2, [0.0, 0.05, 0.1, 0.15, 0.2]),
        (0.013, 0.187, [0.0, 0.05, 0.1, 0.15, 0.2]),
        (1e-6, 4e-6, [1e-6, 2e-6, 3e-6, 4e-6]),
    ],
)
def test_ticks_are_round_numbers_around_the_values(low, high, ticks):
    assert nice_ticks(low, high, count=4) == pytest.approx(ticks)


def test_ticks_of_steps_are_whole():
    assert nice_ticks(1, 3, count=6, whole=True) == [1, 2, 3]


def test_the_smooth_line_is_unbiased_from_the_first_value_on():
    assert smoothed([0.5] * 20, span=10) == pytest.approx([0.5] * 20)
    assert smoothed([1.0, 0.0], span=3)[1] == pytest.approx(0.5 / 1.5)


def test_several_curves_have_a_key_and_leave_out_what_is_not_there():
    lines = {"unet": [1e-4, 2e-4, 3e-4], "<te>": [None, 5e-5, None], "idle": [None] * 3}
    text = lines_chart([1, 2, 3], lines, title="Learning rate", smooth=False)
    assert text.count("<polyline") == 2
    assert "unet <b>0.0003</b>" in text
    assert "&lt;te&gt; <b>5e-05</b>" in text
    assert "idle" not in text


def test_of_many_curves_the_first_few_are_drawn():
    lines = {f"block {i}": [1e-4, 1e-4] for i in range(30)}
    text = lines_chart([1, 2], lines, title="Learning rate", smooth=False)
    assert text.count("<polyline") == len(COLOURS)


def test_curves_without_a_value_are_no_picture():
    assert lines_chart([], {}, title="Learning rate", smooth=False) == ""
    assert lines_chart([1], {"unet": [None]}, title="Learning rate", smooth=True) == ""


def test_the_loss_on_held_out_images_is_drawn_beside_the_trainings():
    plain, both = (loss_chart(range(1, 13), wave(12), held) for held in ({}, {4: 0.3, 12: 0.25}))
    assert plain == loss_chart(range(1, 13), wave(12))
    assert HELD_OUT not in plain
    assert both.count(f'fill="{HELD_OUT}"') == 2
    assert "on held-out images 0.25" in both
    line = re.search(rf'points="([^"]*)" fill="none" stroke="{HELD_OUT}"', both)[1]
    (x, high), (end, low) = (tuple(map(float, point.split(","))) for point in line.split())
    assert x < end and TOP <= high < low  # 0.3 lies above 0.25, and inside


def test_many_validations_stay_a_small_picture():
    held = dict(zip(range(1, 5001), wave(5000), strict=True))
    svg = loss_chart(range(1, 5001), wave(5000), held)
    ElementTree.fromstring(svg)
    assert len(svg) < 24_000


def test_validation_by_noise_level_is_a_share_of_the_bases_loss():
    past = History()
    past.add(Validated(3, 0.3, 0.1, 0.2, bands=(0.1, None), base_bands=(0.4, None)))
    past.add(Validated(6, 0.6, 0.1, 0.2, bands=(0.2, None), base_bands=(0.4, None)))
    assert "<b>50</b>" in validation_by_noise_level(past)
    assert "set Validation split" in validation_by_noise_level(History())


def test_the_key_names_what_was_measured_and_the_word_escaped():
    past = History()
    for event in whole_run(3):
        past.add(event)
    past.add(Validated(3, 0.3, 0.1, 0.2, word="<b>x"))
    assert "held-out images" in loss(past) and "&lt;b&gt;x" in loss(past)
    past.add(Validated(3, 0.3, 0.1, 0.2, on="trained"))
    assert "trained images" in loss(past) and "class word" not in loss(past)
    past.add(Validated(3, 0.3, 0.1, 0.2, on="trained", prior_loss=0.06, prior_base_loss=0.05))
    assert "class word <b>0.06</b> (bare base model 0.05)" in loss(past)
