"""Bucket arithmetic against recorded numbers of the reference trainer."""

import json
from pathlib import Path

import pytest

from kit.dataset.buckets import (
    BucketFit,
    BucketRule,
    adjusted_bounds,
    bucket_sizes,
    crop_conditions,
    fit,
    letterbox_conditions,
)
from kit.errors import DatasetError, SettingsError

GOLDEN = Path(__file__).parents[1] / "golden"
CHOICES = json.loads((GOLDEN / "buckets.json").read_text())["settings_rows"]
LISTS = json.loads((GOLDEN / "bucket_lists.json").read_text())
CONDITIONS = json.loads((GOLDEN / "sdxl_time_ids.json").read_text())["cases"]


def rule_of(settings):
    return BucketRule(
        resolution=tuple(settings["resolution"]),
        shortest=settings["min"],
        longest=settings["max"],
        step=settings["step"],
        no_upscale=settings["no_upscale"],
    )


def is_without_bucket(row):
    return row[2] == "error" or 0 in row[2:4]


@pytest.mark.parametrize("name", CHOICES)
def test_every_image_goes_where_the_reference_puts_it(name):
    rule = rule_of(CHOICES[name]["settings"])
    rows = [row for row in CHOICES[name]["rows"] if not is_without_bucket(row)]
    assert len(rows) > 100
    for width, height, *numbers in rows:
        found = fit((width, height), rule)
        assert [*found.bucket, *found.resized] == numbers[:4], (width, height)


@pytest.mark.parametrize("name", CHOICES)
def test_the_cut_lies_in_the_middle_as_in_the_reference(name):
    rule = rule_of(CHOICES[name]["settings"])
    for row in CHOICES[name]["rows"]:
        if not is_without_bucket(row):
            across, down = fit((row[0], row[1]), rule).overhang
            assert [across // 2, down // 2] == row[7]


def test_where_the_reference_gives_no_bucket_or_stops_we_name_the_image():
    without = [
        (rule_of(group["settings"]), tuple(row[:2]))
        for group in CHOICES.values()
        for row in group["rows"]
        if is_without_bucket(row)
    ]
    assert without
    for rule, size in without:
        with pytest.raises(DatasetError, match=f"{size[0]} x {size[1]} pixels is smaller than"):
            fit(size, rule)


@pytest.mark.parametrize("name", LISTS["lists"])
def test_the_list_of_buckets_is_the_references(name):
    golden = LISTS["lists"][name]
    assert [list(size) for size in bucket_sizes(rule_of(golden["settings"]))] == (
        golden["resolutions"]
    )


@pytest.mark.parametrize("case", LISTS["min_max_adjustment"])
def test_bounds_become_multiples_of_the_step_or_are_refused(case):
    rule = BucketRule(
        tuple(case["resolution"]), case["min"], case["max"], case["step"], no_upscale=False
    )
    if isinstance(case["result"], list):
        assert list(adjusted_bounds(rule)) == case["result"]
    else:
        which = "min_bucket_reso" if "min_bucket" in case["message"] else "max_bucket_reso"
        with pytest.raises(SettingsError, match=which):
            adjusted_bounds(rule)


def test_a_step_above_the_shortest_side_leaves_one_step():
    rule = BucketRule((512, 512), shortest=100, longest=1024, step=256, no_upscale=False)
    assert adjusted_bounds(rule)[0] == 256
    assert all(min(size) >= 256 for size in bucket_sizes(rule))


def test_buckets_never_exceed_the_area_and_the_cut_never_the_picture():
    rule = BucketRule((832, 640), step=32, no_upscale=False)
    for width, height in bucket_sizes(rule):
        assert width * height <= 832 * 640
    for width in range(40, 2000, 97):
        for height in range(40, 2000, 89):
            place = fit((width, height), rule)
            assert min(place.overhang) >= 0
            assert min(place.overhang) <= 1


def test_without_buckets_every_image_covers_the_resolution():
    rule = BucketRule((512, 768), enabled=False)
    assert fit((100, 100), rule) == BucketFit((512, 768), (768, 768))
    assert fit((4000, 500), rule) == BucketFit((512, 768), (6144, 768))
    assert fit((512, 768), rule) == BucketFit((512, 768), (512, 768))


def size_rule():
    return BucketRule((1024, 1024), 256, 2048, 32, no_upscale=False)


@pytest.mark.parametrize("case", CONDITIONS)
def test_the_letterbox_numbers_are_the_references(case):
    width, height = case["image"]
    target_height, target_width = case["target_size_hw"]
    found = letterbox_conditions(
        (width, height), (target_width, target_height), flipped=case["flipped"]
    )
    assert list(found) == [
        *case["original_size_hw"], *case["crop_top_left"], *case["target_size_hw"]
    ]  # fmt: skip


@pytest.mark.parametrize("case", CONDITIONS)
def test_the_true_cut_differs_from_the_reference_only_in_where_it_says_to_be_cut(case):
    size = tuple(case["image"])
    place = fit(size, size_rule())
    across, down = place.overhang
    offset = across // 2, down // 2
    found = crop_conditions(size, place, offset, flipped=case["flipped"])
    assert list(found[:2]) == case["original_size_hw"]
    assert list(found[4:]) == case["target_size_hw"]
    left = across - offset[0] if case["flipped"] else offset[0]
    assert found[2:4] == (offset[1], left)


def test_the_true_cut_lies_on_the_axis_that_is_cut():
    # 1000 x 1500 in 832 x 1216: scaled to 832 x 1248, 16 rows are cut away at the top. The
    # reference says top 0, left 10 instead: the margin of the whole image fitted inside.
    rule = BucketRule((1024, 1024), 256, 2048, 64, no_upscale=False)
    place = fit((1000, 1500), rule)
    assert place == BucketFit((832, 1216), (832, 1248))
    assert crop_conditions((1000, 1500), place, (0, 16), flipped=False)[2:4] == (16, 0)
    assert letterbox_conditions((1000, 1500), (832, 1216), flipped=False)[2:4] == (0, 10)


def test_a_mirrored_picture_is_cut_from_its_mirrored_left():
    place = BucketFit((512, 512), (600, 512))
    assert crop_conditions((600, 512), place, (20, 0), flipped=True)[2:4] == (0, 68)
    assert crop_conditions((600, 512), place, (20, 0), flipped=False)[2:4] == (0, 20)
