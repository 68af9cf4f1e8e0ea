"""Which pictures are held out."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from kit.dataset.images import TrainImage
from kit.errors import SettingsError
from kit.settings import Validation
from kit.validation.holding_out import hold_out, kept_of

OFF = Validation()


def images(count, *, folder="10_cat", start=0, **changes):
    return [
        TrainImage(Path(folder) / f"{start + n:02d}.png", 64, 64, "a cat", folder, 10, **changes)
        for n in range(count)
    ]


def names(found, *, held):
    return [str(image.path) for image in found if image.held_out is held]


def test_without_a_split_nothing_changes():
    every = images(5)
    assert hold_out(every, [OFF]) == (tuple(every), ())


@pytest.mark.parametrize(
    ("count", "split", "trained"),
    [
        (10, 0.1, 9),
        (10, 0.15, 9),
        (7, 0.1, 7),
        (20, 0.1, 18),
        (10, 0.7, 3),
        (10, 0.9, 1),
        (3, 0.5, 2),
    ],
)
def test_a_share_leaves_the_ceiling_of_the_rest(count, split, trained):
    way = Validation(validation_split=split)
    assert kept_of(count, way) == trained
    found, _ = hold_out(images(count), [way])
    assert len(names(found, held=False)) == trained
    assert len(names(found, held=True)) == count - trained


def test_those_held_out_stand_behind_the_others_which_keep_their_order():
    every = images(8) + images(3, folder="1_reg", is_reg=True)
    found, _ = hold_out(every, [Validation(validation_count=3)])
    kept = [image for image in found if not image.held_out]
    assert list(found[: len(kept)]) == kept == [image for image in every if image in kept]
    assert [image.held_out for image in found[len(kept) :]] == [True] * 3
    assert not [image for image in found if image.is_reg and image.held_out]


def test_they_are_those_that_pythons_own_shuffle_puts_last():
    """As sd-scripts draws with a validation_seed."""
    every = images(10)
    for seed in (0, 7):
        order = [str(image.path) for image in every]
        random.Random(seed).shuffle(order)
        found, _ = hold_out(every, [Validation(validation_split=0.3, validation_seed=seed)])
        assert sorted(names(found, held=True)) == sorted(order[7:])
    blank, _ = hold_out(every, [Validation(validation_split=0.3)])
    assert blank == hold_out(every, [Validation(validation_split=0.3, validation_seed=0)])[0]


def test_every_folder_gives_its_own():
    every = images(6) + images(4, folder="3_dog")
    found, _ = hold_out(every, [Validation(validation_split=0.5)])
    assert [image.folder for image in found if image.held_out] == ["10_cat"] * 3 + ["3_dog"] * 2


def test_every_subset_has_its_own_share():
    every = images(4) + images(4, folder="dog", subset=1) + images(4, folder="cow", subset=2)
    ways = [OFF, Validation(validation_count=1), Validation(validation_split=0.5)]
    found, _ = hold_out(every, ways)
    assert [image.subset for image in found if image.held_out] == [1, 2, 2]


def test_a_file_that_is_held_out_is_trained_nowhere_else():
    """The same folder at two resolutions: what is learned at one is not measured at the other."""
    every = images(6) + images(6, subset=1)
    ways = [Validation(validation_count=2), OFF]
    found, _ = hold_out(every, ways)
    held = set(names(found, held=True))
    assert len(held) == 2 and len(names(found, held=True)) == 4
    assert not held & set(names(found, held=False))


@pytest.mark.parametrize(("count", "do"), [(3, "at most 2"), (1, "put more pictures there")])
def test_a_count_that_leaves_nothing_to_train_is_refused(count, do):
    with pytest.raises(SettingsError) as refused:
        hold_out(images(count), [Validation(validation_count=3)])
    [text] = refused.value.problems
    assert text.startswith(
        "[validation] validation_count: nothing would be left to train of 10_cat"
    )
    assert do in text


def test_a_share_that_holds_out_nothing_is_told():
    found, told = hold_out(images(5), [Validation(validation_split=0.1)])
    assert not names(found, held=True)
    assert (
        len(told) == 1 and "holds out no picture" in told[0] and "validation_count = 2" in told[0]
    )


def test_one_picture_alone_is_told():
    _, told = hold_out(images(5), [Validation(validation_count=1)])
    assert len(told) == 1 and "alone is held out" in told[0] and "validation_count = 2" in told[0]
    assert hold_out(images(5), [Validation(validation_count=2)])[1] == ()


def test_the_seed_decides_which():
    every = images(10)
    ways = [[Validation(validation_count=3, validation_seed=seed)] for seed in range(5)]
    assert len({tuple(names(hold_out(every, way)[0], held=True)) for way in ways}) > 1


def test_the_record_of_an_image_is_otherwise_the_same():
    every = images(4)
    found, _ = hold_out(every, [Validation(validation_count=1)])
    assert {replace(image, held_out=False) for image in found} == set(every)
