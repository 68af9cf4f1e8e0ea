"""Batches: a function of their number, with true crops, honest weights and fair coins."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kit import planning
from kit.caching.latents import OnTheFlyLatents, cache_latents
from kit.dataset.batches import batch_at
from kit.diffusion import noise
from kit.families import Family, TextEmbeds
from kit.families.text import TextConditioner
from kit.planning import Plan
from kit.processes import Processes
from kit.training.batches import Batch, BatchBuilder
from kit.training.caches import latent_encoder
from kit.training.ranks import Ranks
from tests.support.parts import load_tiny, outcome, paint_all, plan_for
from tests.support.tiny import write_tiny

LIVE = {"cache_latents": False}


class Eye:
    """Stands in for a family: its latents are the picture's own pixels, every eighth of them."""

    latent_scale = 1.0

    def encode_pixels(self, pixels_B3HW):
        mean_B3hw = pixels_B3HW[:, :, ::8, ::8]
        return mean_B3hw, torch.full_like(mean_B3hw, -30.0)

    def tokenize(self, captions, *, max_token_length, weighted=False):
        return (torch.tensor([[len(caption)] for caption in captions]),)


def live(plan: Plan, family: Family) -> BatchBuilder:
    return BatchBuilder(
        plan, TextConditioner(family), OnTheFlyLatents(latent_encoder(plan, family)), None
    )


def numbers(plan: Plan, epochs: int = 1) -> range:
    return range(plan.batches_per_epoch * epochs)


def equal(one: Batch, other: Batch) -> bool:
    def tensors(batch: Batch) -> list[torch.Tensor]:
        given = [batch.latents_BChw, batch.noise_BChw, batch.t_B, batch.weight_B, batch.crops_B6]
        return [*given, *(batch.tokens or ())]

    pairs = zip(tensors(one), tensors(other), strict=True)
    return one.micro_step == other.micro_step and all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def images(tmp_path) -> Path:
    folder = paint_all(tmp_path / "images", {name: f"a {name}" for name in "abcde"})
    return paint_all(folder, {name: f"a {name}" for name in "xyz"}, size=(88, 72))


def test_a_batch_alone_is_the_same_as_in_its_sequence(images, tmp_path):
    family = load_tiny(write_tiny(tmp_path / "model", "sd1"))
    changes = {"random_crop": True, "flip_aug": True, "noise_offset": 0.1, "train_batch_size": 2}
    plan = plan_for(images, **LIVE, **changes)
    batch_builder = live(plan, family)
    sequence = [batch_builder.batch(number) for number in numbers(plan, epochs=2)]
    assert len(sequence) == 8
    for batch in (sequence[5], sequence[0], sequence[7]):
        alone = live(plan_for(images, **LIVE, **changes), family).batch(batch.micro_step)
        assert equal(alone, batch)
    assert not any(equal(one, other) for one in sequence for other in sequence if one is not other)


def test_a_batch_holds_what_the_layout_says(images):
    plan = plan_for(images, **LIVE, train_batch_size=3)
    for number in numbers(plan):
        batch = live(plan, Eye()).batch(number)
        (width, height), uses = batch_at(plan.layout, number)
        assert batch.micro_step == number
        assert batch.latents_BChw.shape == (len(uses), 3, height // 8, width // 8)
        assert batch.noise_BChw.shape == batch.latents_BChw.shape
        assert batch.t_B.shape == batch.weight_B.shape == (len(uses),)
        assert batch.crops_B6.shape == (len(uses), 6)
        assert batch.text_embeds is None


def test_a_step_gathers_its_micro_batches(images):
    plan = plan_for(images, **LIVE, gradient_accumulation_steps=3)
    batch_builder = live(plan, Eye())
    windows = [[b.micro_step for b in batch_builder.micro_batches(step)] for step in range(1, 7)]
    assert windows == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9, 10], [11, 12, 13], [14, 15]]


def test_another_seed_gives_other_batches(images):
    one, other = (live(plan_for(images, **LIVE, seed=seed), Eye()).batch(0) for seed in (3, 4))
    assert not torch.equal(one.noise_BChw, other.noise_BChw)


def test_latents_are_scaled_and_drawn_around_their_mean(images):
    class Wide(Eye):
        latent_scale = 0.5

        def encode_pixels(self, pixels_B3HW):
            mean_B3hw, _ = super().encode_pixels(pixels_B3HW)
            return mean_B3hw, torch.full_like(mean_B3hw, 2 * np.log(3.0))

    plan = plan_for(images, **LIVE)
    for number in numbers(plan):
        wide, sharp = (live(plan, kind()).batch(number).latents_BChw for kind in (Wide, Eye))
        draw = noise.draw_normal(tuple(sharp.shape[1:]), plan.seed, "latent", number, 0)
        assert torch.allclose(wide, 0.5 * (sharp + 3.0 * draw), atol=1e-4)


def test_noise_offset_shifts_each_channel_of_the_same_noise(images):
    plain = live(plan_for(images, **LIVE, train_batch_size=2), Eye())
    shifted = live(plan_for(images, **LIVE, train_batch_size=2, noise_offset=0.1), Eye())
    shifts = []
    for number in numbers(plain.plan):
        difference = shifted.batch(number).noise_BChw - plain.batch(number).noise_BChw
        assert torch.allclose(difference, difference.mean((2, 3), keepdim=True), atol=1e-6)
        shifts += difference.mean((2, 3)).flatten().tolist()
    assert 0.04 < np.std(shifts) < 0.2


def test_regularisation_images_count_with_their_own_weight(images, tmp_path):
    reg = paint_all(tmp_path / "reg", {"r1": "a thing", "r2": "a thing"}, size=(72, 72))
    plan = plan_for(
        images, **LIVE, reg_data_dir=str(reg), prior_loss_weight=0.25, train_batch_size=4
    )
    batch_builder, seen = live(plan, Eye()), []
    for number in numbers(plan):
        _, uses = batch_at(plan.layout, number)
        weights = batch_builder.batch(number).weight_B.tolist()
        assert weights == [0.25 if plan.images[use.image].is_reg else 1.0 for use in uses]
        seen += weights
    assert seen.count(0.25) == seen.count(1.0) == 8


def paint_positions(path: Path, size: tuple[int, int]) -> None:
    """Red tells the column, green the row."""
    path.parent.mkdir(parents=True)
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    picture = np.stack([columns, rows, np.zeros_like(rows)], axis=-1)
    Image.fromarray(picture.astype(np.uint8)).save(path)


@pytest.mark.parametrize("random_crop", [True, False])
def test_sdxl_is_told_the_true_offset_of_every_cut(tmp_path, random_crop):
    paint_positions(tmp_path / "images" / "40_thing" / "one.png", (80, 76))
    changes = {"random_crop": random_crop, "flip_aug": True}
    plan = plan_for(tmp_path / "images", **LIVE, **changes)
    batch_builder, seen = live(plan, Eye()), set()
    for number in numbers(plan):
        batch = batch_builder.batch(number)
        [levels_3hw] = (batch.latents_BChw + 1) * 127.5
        [sizes] = batch.crops_B6.tolist()
        first, second = levels_3hw[0, 0, :2].round().tolist()
        flipped = second < first
        left, top = first - (63 if flipped else 0), levels_3hw[1, 0, 0].round().item()
        # A mirrored picture is cut from its mirrored left side.
        told_left = 80 - 64 - left if flipped else left
        assert sizes == [76, 80, top, told_left, 64, 64]
        seen.add((left, top, flipped))
    cuts = {cut[:2] for cut in seen}
    assert len(cuts) > 20 if random_crop else cuts == {(8.0, 6.0)}
    assert {flipped for *_, flipped in seen} == {True, False}


def test_about_half_of_all_uses_are_mirrored_and_not_always_the_same(tmp_path):
    for number in range(5):
        paint_positions(tmp_path / "images" / f"40_thing {number}" / "one.png", (64, 64))
    plan = plan_for(tmp_path / "images", flip_aug=True)
    latents, _ = outcome(cache_latents(latent_encoder(plan, Eye()), batch_size=1))
    batch_builder, by_epoch = BatchBuilder(plan, TextConditioner(Eye()), latents, None), []
    for epoch in range(2):
        mirrored = {}
        for place in numbers(plan):
            number = epoch * plan.batches_per_epoch + place
            _, [use] = batch_at(plan.layout, number)
            row = batch_builder.batch(number).latents_BChw[0, 0, 0]
            mirrored[use] = bool(row[0] > row[-1])
        by_epoch.append(mirrored)
    first, second = by_epoch
    assert 0.4 < sum([*first.values(), *second.values()]) / 400 < 0.6
    assert 0.35 < sum(first[use] != second[use] for use in first) / 200 < 0.65


def test_kept_words_replace_tokens(images):
    class Kept:
        prefetch_batches = 0

        def of(self, captions):
            return TextEmbeds(torch.tensor([[[float(ord(caption[-1]))]] for caption in captions]))

    plan = plan_for(images, **LIVE, train_batch_size=2)
    batch_builder = BatchBuilder(
        plan, TextConditioner(Eye()), OnTheFlyLatents(latent_encoder(plan, Eye())), Kept()
    )
    batch = batch_builder.batch(0)
    _, uses = batch_at(plan.layout, 0)
    assert batch.tokens is None
    letters = [plan.images[use.image].caption[-1] for use in uses]
    assert batch.text_embeds.hidden_BND.flatten().tolist() == [
        float(ord(letter)) for letter in letters
    ]


def test_an_epoch_ends_where_the_next_one_begins(images, monkeypatch):
    plan = plan_for(images, **LIVE)
    batch_builder, ended = live(plan, Eye()), []
    monkeypatch.setattr(OnTheFlyLatents, "end_epoch", lambda self: ended.append(micro_step))
    for micro_step in numbers(plan, epochs=3):
        batch_builder.batch(micro_step)
    assert ended == [0, plan.batches_per_epoch, 2 * plan.batches_per_epoch]


class Asked(OnTheFlyLatents):
    """Of a disk: notes what is to be read ahead."""

    prefetch_batches = 4

    def __init__(self, encoder):
        super().__init__(encoder)
        self.asked = set()

    def prefetch(self, uses, *, epoch):
        self.asked |= {(epoch, use) for use in uses}


@pytest.mark.parametrize("gathered", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_is_read_ahead_is_what_this_process_uses(images, count, gathered):
    """Of eight batches an epoch: windows at its end are short, and not every process has work."""
    plan = planning.plan(
        plan_for(images, **LIVE, gradient_accumulation_steps=gathered, epoch=3).settings,
        processes=count,
    )
    used = []
    for rank in range(count):
        ranks = Ranks(Processes(count, rank, rank))
        latents, mine = Asked(latent_encoder(plan, Eye())), set()
        builder = BatchBuilder(plan, TextConditioner(Eye()), latents, None, ranks.share)
        for step in range(1, plan.total_steps + 1):
            for number in ranks.share(plan.micro_steps(step)):
                builder.batch(number)
                epoch, uses = number // plan.batches_per_epoch, batch_at(plan.layout, number)[1]
                mine |= {(epoch, use) for use in uses}
                assert mine <= latents.asked
        assert latents.asked == mine
        used += mine
    assert len(used) == len(set(used)) == 3 * plan.batches_per_epoch
