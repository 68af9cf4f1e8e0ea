import itertools
import json
from collections import Counter
from pathlib import Path

import pytest

from kit.dataset.batches import Layout, balanced_repeats, batch_at

STEPS = json.loads((Path(__file__).parents[1] / "golden" / "steps.json").read_text())["cases"]
WITH_REG = [case for case in STEPS if case.get("reg_image_repeats")]

SQUARE, WIDE = (512, 512), (704, 320)
LAYOUT = Layout(
    buckets=((SQUARE, ((0, 3), (1, 3), (2, 1))), (WIDE, ((3, 2), (4, 2), (5, 2)))),
    batch_size=4,
    seed=11,
)


def epoch_of(layout, epoch):
    count = layout.batches_per_epoch
    return [batch_at(layout, step) for step in range(epoch * count, (epoch + 1) * count)]


def uses_of(layout, epoch):
    return [use for _, uses in epoch_of(layout, epoch) for use in uses]


def test_each_bucket_rounds_up():
    assert LAYOUT.batches_per_epoch == 2 + 2


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 100])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_every_use_comes_exactly_once_in_an_epoch(batch_size, epoch):
    layout = Layout(LAYOUT.buckets, batch_size, seed=11)
    found = Counter((use.image, use.turn) for use in uses_of(layout, epoch))
    asked = [(image, turn) for _, uses in layout.buckets for image, n in uses for turn in range(n)]
    assert found == Counter(asked)


def test_a_batch_comes_from_one_bucket_and_only_the_last_of_a_bucket_is_short():
    members = {size: {image for image, _ in images} for size, images in LAYOUT.buckets}
    lengths = {size: [] for size in members}
    for size, uses in epoch_of(LAYOUT, 0):
        assert {use.image for use in uses} <= members[size]
        lengths[size].append(len(uses))
    assert {size: sorted(found) for size, found in lengths.items()} == {
        SQUARE: [3, 4],
        WIDE: [2, 4],
    }


def test_a_batch_is_the_same_whether_reached_in_order_or_at_once():
    in_order = [batch_at(LAYOUT, step) for step in range(40)]
    for step in (39, 0, 17, 4, 39):
        again = Layout(LAYOUT.buckets, LAYOUT.batch_size, LAYOUT.seed)
        assert batch_at(again, step) == in_order[step]


def test_epochs_are_shuffled_differently():
    assert len({tuple(epoch_of(LAYOUT, epoch)) for epoch in range(5)}) == 5


def test_seeds_are_shuffled_differently():
    other = Layout(LAYOUT.buckets, LAYOUT.batch_size, seed=12)
    assert epoch_of(LAYOUT, 0) != epoch_of(other, 0)


def test_seeds_shuffle_within_a_bucket_too():
    # One batch: what differs is not the order of the batches, which has an address of its own.
    orders = [
        uses_of(Layout(((SQUARE, tuple((image, 1) for image in range(20))),), 20, seed), 0)
        for seed in (1, 2)
    ]
    assert orders[0] != orders[1]
    assert sorted(orders[0], key=repr) == sorted(orders[1], key=repr)


def test_buckets_take_turns_within_an_epoch():
    layout = Layout(((SQUARE, ((0, 20),)), (WIDE, ((1, 20),))), 1, seed=3)
    order = [size for size, _ in epoch_of(layout, 0)]
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes > 8


def rotating_layout(pool=5, used=2):
    images = ((pool, 1), *((i, 1) for i in range(used)))  # image `pool` is a training image
    return Layout(((SQUARE, images),), 4, 1, rotating=((SQUARE, tuple(range(pool))),))


@pytest.mark.parametrize(("pool", "used"), [(5, 2), (80, 50), (6, 3), (7, 7), (3, 1)])
def test_images_beyond_the_balance_take_turns(pool, used):
    layout = rotating_layout(pool, used)
    seen = Counter()
    epochs = -(-pool // used)
    for epoch in range(epochs):
        images = [use.image for use in uses_of(layout, epoch) if use.image < pool]
        assert len(set(images)) == len(images) == used
        seen.update(images)
    assert set(seen) == set(range(pool)), "as few epochs as possible show every image"


def test_the_others_of_the_bucket_stay():
    for epoch in range(4):
        assert 8 in {use.image for use in uses_of(rotating_layout(pool=8), epoch)}


@pytest.mark.parametrize("case", WITH_REG)
def test_repeats_of_regularisation_images_are_balanced_as_by_the_reference(case):
    train = sum(
        int(name.split("_")[0]) * len(sizes) for name, sizes in case["case"]["train"].items()
    )
    # In the reference's order: folders as the file system lists them.
    folders = [n.removesuffix(" (reg)") for n in case["folder_order"] if n.endswith(" (reg)")]
    files = [
        (f"reg/{folder}/{number:03}.png", int(folder.split("_")[0]))
        for folder in folders
        for number in range(len(case["case"]["reg"][folder]))
    ]
    counts = balanced_repeats([repeats for _, repeats in files], train)
    found = {name: count for (name, _), count in zip(files, counts, strict=True) if count}
    assert found == case["reg_image_repeats"]


def test_nothing_to_balance_is_nothing():
    assert balanced_repeats([], 10) == []
    assert balanced_repeats([3, 3], 0) == [0, 0]
