"""When is validated, and what it costs."""

from dataclasses import replace
from pathlib import Path

import pytest

from kit.dataset.images import TrainImage
from kit.settings import Validation
from kit.validation.class_word import DRAWN, FORWARDS
from kit.validation.questions import EACH
from kit.validation.schedule import FORWARD, MOST, TRAINED, Length, Schedule, schedule


def images(learned, held=0):
    return [
        TrainImage(Path(f"{n}.png"), 64, 64, "", "10_cat", 10, held_out=n >= learned)
        for n in range(learned + held)
    ]


def length(total=100, per_epoch=20, uses=200, batch=10):
    return Length(total, per_epoch, uses, batch)


def due(made):
    return [step for step in range(made.total + 1) if made.is_due(step)]


def test_nothing_is_due_where_nothing_is_held_out_or_asked():
    assert not schedule(images(5), Validation(), length())
    assert due(Schedule(total=5)) == []
    assert list(Schedule().lines(5)) == []


def test_once_an_epoch_where_nothing_is_said():
    made = schedule(images(18, 2), Validation(validation_count=2), length(uses=20_000))
    assert due(made) == [20, 40, 60, 80, 100]
    assert made.held_out == (18, 19) and len(made.beside) == 2


def test_the_end_is_always_measured():
    made = schedule(images(18, 2), Validation(validate_every_n_steps=30), length(total=70))
    assert due(made) == [30, 60, 70]
    made = schedule(images(18, 2), Validation(validate_every_n_epochs=2), length(total=70))
    assert due(made) == [40, 70]


def test_steps_and_epochs_go_together():
    ways = Validation(validate_every_n_steps=15, validate_every_n_epochs=2)
    made = schedule(images(18, 2), ways, length())
    assert due(made) == [15, 30, 40, 45, 60, 75, 80, 90, 100]


@pytest.mark.parametrize("total", [1, 7, 19, 20, 40, 60, 61, 100])
@pytest.mark.parametrize("steps", [0, 1, 7, 15, 20, 200])
@pytest.mark.parametrize("epochs", [0, 1, 2, 50])
def test_times_are_counted_without_living_through_them(total, steps, epochs):
    made = Schedule((1,), (0,), total, 20, steps, epochs)
    assert made.times == len(due(made))


def test_where_nothing_says_how_often_it_takes_a_tenth_of_the_time_at_most():
    for held in (1, 2, 4, 8):
        for uses in (200, 400, 800, 4000):
            made = schedule(
                images(20, held), Validation(validation_count=held), length(1000, 20, uses)
            )
            sparser = made.every_epochs == 50
            assert made.share <= MOST or sparser
            assert due(made)[-1] == 1000
            if made.every_epochs > 1:  # one epoch less would be too much
                often = FORWARD * held * 2 * EACH * (1000 // (20 * (made.every_epochs - 1)) + 1)
                assert often / (50 * uses + often) > MOST * 0.98


def test_who_says_how_often_gets_it_with_its_cost():
    asked = Validation(validation_count=4, validate_every_n_steps=1)
    made = schedule(images(8, 4), asked, length())
    assert made.times == 100
    extra = FORWARD * 2 * 4 * EACH * 101
    assert made.share == pytest.approx(extra / (extra + 1000))


@pytest.mark.parametrize(("batches", "most"), [(1, 5), (2, 10), (6, 30), (100, 0)])
def test_max_validation_steps_bounds_the_batches(batches, most):
    asked = Validation(validation_count=4, max_validation_steps=batches)
    made = schedule(images(8, 4), asked, length())
    assert made.most == most
    free = schedule(images(8, 4), asked.model_copy(update={"max_validation_steps": None}), length())
    if most:
        assert 2 * most <= batches * 10
        assert made.every_epochs < free.every_epochs or made.share < free.share


def test_without_held_out_pictures_the_trained_ones_are_asked_about():
    made = schedule(images(40), Validation(validate_every_n_epochs=1), length(uses=9000))
    assert made.held_out == () and len(made.beside) == TRAINED
    assert "no image is held out" in next(made.lines(40))


def test_without_held_out_pictures_the_base_draws_some_of_the_class_word_and_that_costs():
    asked, folder = Validation(validate_every_n_epochs=1), "10_zib ball"
    named = [replace(image, folder=folder, caption="a zib ball, red") for image in images(4)]
    made = schedule(named, asked, length())
    assert made.drawn == ("a ball, red",) * DRAWN
    told = "beside 4 that are trained and 4 that the bare base model draws for the class word, "
    assert told in next(made.lines(4))
    extra = FORWARD * ((4 + DRAWN) * EACH * 6 + FORWARDS)
    assert made.share == pytest.approx(extra / (extra + 1000))
    assert schedule(images(4), asked, length()).drawn == ()  # no class, no words
    assert schedule(named, asked, length(), captions=()).drawn == ()  # an inpainting model's
    held = [*named[:3], replace(named[3], held_out=True)]
    assert schedule(held, asked, length()).drawn == ()
    bound = schedule(named, asked.model_copy(update={"max_validation_steps": 1}), length())
    assert bound.most == 5  # of ten in a batch, for each kind


def test_the_plan_says_what_it_costs():
    made = schedule(images(18, 2), Validation(validation_split=0.1), length(uses=2000))
    assert list(made.lines(18)) == [
        "validation: 2 of 20 images held out, measured beside 2 that are trained, 5 times (every "
        "epoch and at the end), about 1 % of the time"
    ]
