"""color_aug: how often it acts, and how far."""

import numpy as np
import pytest

from kit.dataset.pixels import recoloured, recolouring

DRAWN = [recolouring(seed=5, epoch=0, image=number, turn=0) for number in range(3000)]


def test_two_thirds_stay_as_they_are_and_the_others_change_one_thing():
    assert sum(drawn == (0.0, 1.0) for drawn in DRAWN) / 3000 == pytest.approx(2 / 3, abs=0.03)
    hues, gammas = ([d[i] for d in DRAWN if d[i] != plain] for i, plain in ((0, 0.0), (1, 1.0)))
    assert len(hues) == pytest.approx(len(gammas), rel=0.2)
    assert not any(hue and gamma != 1 for hue, gamma in DRAWN)
    assert (min(hues), max(hues)) == (pytest.approx(-16, abs=0.5), pytest.approx(16, abs=0.5))
    assert (min(gammas), max(gammas)) == (
        pytest.approx(0.95, abs=0.002),
        pytest.approx(1.05, abs=0.002),
    )
    assert np.mean(hues) == pytest.approx(0, abs=1.2)


def test_a_gamma_acts_on_brightness_from_0_to_1():
    gray = np.full((1, 1, 3), 64, np.uint8)
    assert recoloured(gray, 0.0, 2.0).ravel().tolist() == [16] * 3  # 255 * (64 / 255)^2
    assert recoloured(gray, 0.0, 1.0) is gray


def test_a_hue_is_turned_by_its_degrees():
    red = np.array([[[255, 0, 0]]], np.uint8)
    green = recoloured(red, 120.0, 1.0).ravel().tolist()
    assert green == pytest.approx([0, 255, 0], abs=6)


def test_the_hue_alone_is_turned_and_goes_round():
    blue_and_pale = np.array([[[0, 0, 255], [150, 150, 200]]], np.uint8)
    turned = recoloured(blue_and_pale, 120.0, 1.0).reshape(2, 3).tolist()
    assert turned[0] == pytest.approx([255, 0, 0], abs=6)
    assert turned[1] == pytest.approx([200, 150, 150], abs=6)
