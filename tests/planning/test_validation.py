"""Held-out pictures in a plan: said, counted, refused where they leave nothing."""

import json

import pytest

from kit import planning
from kit.errors import SettingsError
from kit.settings import Settings
from tests.support.parts import paint, paint_all, plan_for

CAPTIONS = {f"{number}": f"picture {number}" for number in range(10)}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return paint_all(tmp_path_factory.mktemp("images") / "set", CAPTIONS)


def test_the_plan_counts_what_is_trained(images):
    plan = plan_for(images, validation_split=0.2, epoch=4)
    told = json.loads(plan.to_json())
    assert (told["images"], told["held_out"], told["steps_per_epoch"]) == (8, 2, 8)
    assert told["validations"][-1] == 32
    assert {i for _, members in plan.layout.buckets for i, _ in members} == set(range(8))
    assert "8 images, with repeats 8" in list(plan.lines())
    [line] = [line for line in plan.lines() if line.startswith("validation: ")]
    assert line.startswith("validation: 2 of 10 images held out, measured beside 2 that are")
    assert "% of the time" in line


def test_a_plan_without_validation_says_nothing_of_it(images):
    plan = plan_for(images)
    assert not plan.validation and not any("validation" in line for line in plan.lines())
    assert json.loads(plan.to_json())["validations"] == []


def test_another_split_is_another_run_and_another_interval_the_same(images):
    prints = {
        plan_for(images, **changes).run.fingerprint
        for changes in (
            {"validation_split": 0.2},
            {"validation_split": 0.3},
            {"validation_split": 0.2, "validation_seed": 8},
        )
    }
    assert len(prints) == 3
    same = {
        plan_for(images, validation_split=0.2, **changes).run.fingerprint
        for changes in ({}, {"validate_every_n_steps": 3}, {"max_validation_steps": 2})
    }
    assert len(same) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"validation_split": 1.0}, "[validation] validation_split: 1 leaves nothing to train"),
        ({"validation_count": 10}, "[validation] validation_count: nothing would be left to train"),
    ],
)
def test_what_leaves_nothing_to_train_is_refused_with_a_remedy(images, changes, said):
    with pytest.raises(SettingsError) as refused:
        plan_for(images, **changes)
    [text] = refused.value.problems
    assert text.startswith(said)
    assert "validation_count = 4" in text or "at most 9" in text


def test_what_holds_out_nothing_or_one_picture_is_told_and_the_run_goes_on(images):
    none = plan_for(images, validation_split=0.05)
    assert not none.validation
    assert any("holds out no picture of folders with 10 images" in n for n in none.notices)
    one = plan_for(images, validation_count=1)
    assert len(one.validation.held_out) == 1
    assert any("alone is held out" in notice for notice in one.notices)


def test_a_dataset_configuration_holds_out_by_subset(tmp_path):
    for name in ("cats", "dogs"):
        for number in range(4):
            picture = paint(tmp_path / name / f"{number}.png", seed=number)
            picture.with_suffix(".txt").write_text(f"{name} {number}")
    config = tmp_path / "data.toml"
    config.write_text(
        "[[datasets]]\nresolution = 64\nvalidation_seed = 4\n"
        '[[datasets.subsets]]\nimage_dir = "cats"\nvalidation_split = 0.5\n'
        '[[datasets.subsets]]\nimage_dir = "dogs"\nnum_repeats = 3\nvalidation_count = 1\n'
        '[[datasets]]\nresolution = 128\n[[datasets.subsets]]\nimage_dir = "dogs"\n'
        "validation_seed = 4\nvalidation_count = 1\n"
    )
    settings = Settings().replace(
        dataset_config=str(config), output_dir=str(tmp_path / "out"), validation_count=3
    )
    plan = planning.plan(settings)
    held = [plan.images[i] for i in plan.validation.held_out]
    assert [image.subset for image in held] == [0, 0, 1, 2]
    assert held[2].path == held[3].path
    trained = {
        plan.images[i].path
        for part in plan.layout.parts
        for _, members in part.buckets
        for i, _ in members
    }
    assert not trained & {image.path for image in held}
    assert "data set 1, cats: 2 images x 1" in "\n".join(plan.lines())
    assert "validation_count has no effect: dataset_config sets it for every subset" in plan.notices
