"""What is asked about a picture: fixed noise, timesteps spread over the range."""

from pathlib import Path

import pytest

from kit.dataset.images import TrainImage
from kit.diffusion.losses import BANDS as LOSS_BANDS
from kit.diffusion.noise import TIMESTEPS as NOISE_TIMESTEPS
from kit.validation.questions import BANDS, EACH, TIMESTEPS, beside, questions


def images(count, **changes):
    return [
        TrainImage(Path("10_cat") / f"{n:02d}.png", 64, 64, "a cat", "10_cat", 10, **changes)
        for n in range(count)
    ]


def test_bands_and_timesteps_are_those_of_the_losses():
    assert (BANDS, TIMESTEPS) == (LOSS_BANDS, NOISE_TIMESTEPS)
    assert EACH >= 8


@pytest.mark.parametrize(("least", "end"), [(0, 1000), (200, 600), (0, 8), (990, 1000), (5, 6)])
def test_every_part_of_the_range_is_asked_once_for_each_picture(least, end):
    asked = questions(images(3), [0, 2], seed=1, least=least, end=end)
    assert len(asked) == 2 * EACH
    for image in (0, 2):
        ts = sorted(question.t for question in asked if question.image == image)
        assert all(least <= t < end for t in ts)
        parts = [int((t - least) * EACH / (end - least)) for t in ts]
        assert parts == sorted(parts)
        if (end - least) % EACH == 0:
            assert parts == list(range(EACH))


def test_each_band_is_asked_alike():
    asked = questions(images(5), range(5), seed=0)
    assert [sum(q.band == band for q in asked) for band in range(BANDS)] == [5 * EACH // BANDS] * 4


def test_a_picture_keeps_its_questions_whatever_lies_beside_it():
    few, many = images(2), images(9)
    alone = {q for q in questions(few, [1], seed=3)}
    assert alone <= set(questions(many, range(9), seed=3))
    assert not alone & set(questions(few, [1], seed=4))


def test_every_question_has_noise_of_its_own():
    asked = questions(images(6), range(6), seed=0)
    assert len({question.number for question in asked}) == len(asked)


def test_a_few_questions_spread_over_range_and_pictures():
    asked = questions(images(8), range(8), seed=0, most=8)
    assert len(asked) == 8
    assert {question.image for question in asked} == set(range(8))
    assert [sum(q.band == band for q in asked) for band in range(BANDS)] == [2] * BANDS


def test_as_many_training_pictures_stand_beside():
    every = images(6) + images(3, is_reg=True) + images(4, held_out=True)
    chosen = beside(every, count=4, seed=0)
    assert len(set(chosen)) == 4 and set(chosen) <= set(range(6))
    assert beside(every, count=4, seed=0) == chosen
    assert beside(every, count=40, seed=0) == tuple(range(6))
    assert len({beside(every, count=3, seed=seed) for seed in range(6)}) > 1
