"""Caches: nothing stale, nothing made twice, nothing lost where disk or precision fails."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kit.caching.latents import (
    CachedLatents,
    OnTheFlyLatents,
)
from kit.caching.text import TextEmbedCache
from kit.dataset.batches import ImageUse, batch_at
from kit.errors import DatasetError
from kit.events import Cached, Noticed
from kit.families import Family
from kit.families.text import TextConditioner
from kit.planning import Plan
from kit.settings.effective import CACHE_FOLDER
from kit.training.batches import BatchBuilder
from kit.training.caches import latent_encoder, run_latents, run_text_embeds, text_conditioner
from tests.support.parts import load_tiny, outcome, paint, paint_all, plan_for
from tests.support.tiny import write_tiny

CAPTIONS = {"one": "a zib ball", "two": "a dog, running", "three": "a zib ball"}
DISK = {"cache_latents_to_disk": True}
WORDS_DISK = {
    "cache_text_encoder_outputs": True,
    "cache_text_encoder_outputs_to_disk": True,
    "text_encoder_lr": 0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1")


@pytest.fixture(scope="module")
def folder_xl(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model-xl"), "sdxl")


@pytest.fixture
def family(folder) -> Family:
    return load_tiny(folder)


@pytest.fixture
def images(tmp_path) -> Path:
    return paint_all(tmp_path / "images", CAPTIONS)


@pytest.fixture
def asked_of(monkeypatch):
    """How many pictures or captions a family was asked to encode, as a growing list."""

    def count(family: Family, name: str) -> list[int]:
        seen: list[int] = []
        real = getattr(family, name)

        def counting(first, **changes):
            seen.append(len(first[0]) if isinstance(first, tuple) else len(first))
            return real(first, **changes)

        monkeypatch.setattr(family, name, counting)
        return seen

    return count


def latents_of(plan: Plan, family: Family) -> CachedLatents:
    latents, _ = outcome(run_latents(plan, family))
    assert isinstance(latents, CachedLatents)
    return latents


def conditioner(plan: Plan, family: Family) -> TextConditioner:
    return text_conditioner(family, plan.settings.memory, plan.settings.captions)


def text_embeds_of(plan: Plan, family: Family) -> TextEmbedCache:
    text_embeds, _ = outcome(
        run_text_embeds(plan, conditioner(plan, family), contextlib.nullcontext)
    )
    return text_embeds


def same(one: CachedLatents, other: CachedLatents) -> bool:
    return one.kept.keys() == other.kept.keys() and all(
        torch.allclose(one.kept[key].mean_Chw, other.kept[key].mean_Chw, atol=1e-5)
        and torch.allclose(one.kept[key].logvar_Chw, other.kept[key].logvar_Chw, atol=1e-4)
        and one.kept[key].crop == other.kept[key].crop
        for key in one.kept
    )


def shelved(images: Path, what: str) -> list[Path]:
    return sorted((images / CACHE_FOLDER / what).glob("*.safetensors"))


# ------------------------------------------------------------------------------------- latents


def test_a_second_run_encodes_nothing_and_trains_on_the_same(images, family, asked_of):
    plan = plan_for(images, **DISK)
    asked = asked_of(family, "encode_pixels")
    first = latents_of(plan, family)
    assert sum(asked) == 3
    assert len(shelved(images, "latents")) == 3
    second = latents_of(plan_for(images, **DISK), family)
    assert sum(asked) == 3
    assert all(
        torch.equal(first.kept[key].mean_Chw, second.kept[key].mean_Chw) for key in first.kept
    )
    assert same(first, second)


def test_without_the_disk_nothing_is_written(images, family):
    latents_of(plan_for(images), family)
    assert not (images / CACHE_FOLDER).exists()


def another_picture(images: Path, family: Family) -> dict:
    paint(images / "1_thing" / "two.png", seed=99)
    return {}


def another_resolution(images: Path, family: Family) -> dict:
    return {"bucket_no_upscale": False, "min_bucket_reso": 64}


def another_vae(images: Path, family: Family) -> dict:
    conv_in = family.vae.encoder.conv_in  # a weight of its own: one in a file is forgotten there
    conv_in.bias = torch.nn.Parameter(conv_in.bias + 0.5, requires_grad=False)
    return {}


def mirroring(images: Path, family: Family) -> dict:
    return {"flip_aug": True}


@pytest.mark.parametrize(
    ("change", "anew"),
    [(another_picture, 1), (another_resolution, 3), (another_vae, 3), (mirroring, 3)],
)
def test_what_changed_is_encoded_anew_and_the_rest_is_not(images, family, asked_of, change, anew):
    latents_of(plan_for(images, **DISK), family)
    with torch.no_grad():
        changes = change(images, family)
    asked = asked_of(family, "encode_pixels")
    cached = latents_of(plan_for(images, **DISK, **changes), family)
    assert sum(asked) == anew
    assert same(cached, latents_of(plan_for(images, **changes), family))


def test_a_mirrored_picture_has_the_latent_of_its_mirror_image(images, family):
    latents = latents_of(plan_for(images, flip_aug=True), family)
    encoder = latents.encoder
    for image in range(3):
        cut = replace(encoder.cut(ImageUse(image, 0), epoch=0), flipped=False)
        mirrored = encoder.pixels(cut).flip(-1)
        mean_BChw, _ = family.encode_pixels(mirrored[None])
        assert torch.allclose(latents.kept[image, True].mean_Chw, mean_BChw[0], atol=1e-5)
        assert not torch.allclose(latents.kept[image, False].mean_Chw, mean_BChw[0], atol=1e-2)


def test_cached_latents_are_those_of_live_encoding(images, family):
    plan = plan_for(images, flip_aug=True)
    kept, live = latents_of(plan, family), OnTheFlyLatents(latent_encoder(plan, family))
    for epoch in range(4):
        for image in range(3):
            ours, theirs = (latents.of(ImageUse(image, 0), epoch=epoch) for latents in (kept, live))
            assert torch.allclose(ours.mean_Chw, theirs.mean_Chw, atol=1e-5)
            assert ours.crop == theirs.crop


def test_pictures_of_one_bucket_are_encoded_together(tmp_path, family, asked_of):
    images = paint_all(tmp_path / "images", {name: "x" for name in "abcde"})
    for seed, name in enumerate("fgh"):
        paint(images / "1_thing" / f"{name}.png", size=(128, 64), seed=seed)
    plan = plan_for(images, vae_batch_size=3)
    asked = asked_of(family, "encode_pixels")
    latents, events = outcome(run_latents(plan, family))
    assert sorted(asked) == [2, 3, 3]
    assert [event.done for event in events if isinstance(event, Cached)][-1] == 8
    one_by_one = latents_of(plan_for(images), family)
    assert same(latents, one_by_one)


@pytest.mark.parametrize("damage", [b"", b"not a tensor", None], ids=["empty", "text", "cut"])
def test_a_damaged_file_is_ignored_and_written_anew(images, family, asked_of, damage):
    plan = plan_for(images, **DISK)
    before = latents_of(plan, family)
    victim = shelved(images, "latents")[1]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    asked = asked_of(family, "encode_pixels")
    assert same(latents_of(plan, family), before)
    assert sum(asked) == 1
    assert load_file(victim).keys() == {"mean", "logvar"}
    assert not list((images / CACHE_FOLDER).rglob("*.part"))


def test_a_file_of_something_else_is_ignored_too(images, family):
    plan = plan_for(images, **DISK)
    before = latents_of(plan, family)
    victim = shelved(images, "latents")[0]
    save_file({"something": torch.zeros(2)}, victim)
    assert same(latents_of(plan, family), before)
    assert load_file(victim).keys() == {"mean", "logvar"}


def test_where_the_disk_refuses_the_run_says_so_and_goes_on(images, family):
    plan = plan_for(images, **DISK)
    (images / CACHE_FOLDER).write_text("a file where the folder should be")
    latents, events = outcome(run_latents(plan, family))
    [notice] = [event.text for event in events if isinstance(event, Noticed)]
    assert str(images / CACHE_FOLDER) in notice
    assert "stays in memory" in notice
    assert same(latents, latents_of(plan_for(images), family))


def test_the_latent_is_drawn_again_at_each_use(images, family):
    plan = plan_for(images, max_train_epochs=2)
    latents = latents_of(plan, family)
    batch_builder = BatchBuilder(plan, conditioner(plan, family), latents, None)
    per_epoch = plan.batches_per_epoch
    drawn = {}
    for number in range(2 * per_epoch):
        _, [use] = batch_at(plan.layout, number)
        drawn.setdefault(use.image, []).append(batch_builder.batch(number).latents_BChw[0])
    assert len(drawn) == 3
    for image, (first, second) in drawn.items():
        assert not torch.equal(first, second)
        latent = latents.kept[image, False]
        std_Chw = (0.5 * latent.logvar_Chw).exp() * family.latent_scale
        mean_Chw = latent.mean_Chw * family.latent_scale
        for draw_Chw in (first, second):
            assert ((draw_Chw - mean_Chw) / std_Chw).std().item() == pytest.approx(1, abs=0.25)


def overflowing(family: Family, *, always: bool) -> None:
    """A VAE that gives infinities in half precision, as SDXL's own does."""
    real = family.vae.encode

    def encode(pixels_B3HW):
        given = real(pixels_B3HW)
        if always or family.vae.dtype is torch.float16:
            given.latent_dist.mean.fill_(torch.inf)
        return given

    family.vae.encode = encode


def test_a_vae_that_overflows_in_16_bits_goes_on_in_32(images, family):
    expected = latents_of(plan_for(images), family)
    overflowing(family, always=False)
    family.vae.half()
    latents, events = outcome(run_latents(plan_for(images), family))
    assert family.vae.dtype is torch.float32
    [told] = [event.text for event in events if isinstance(event, Noticed)]
    assert "float16: it works in float32 from now on" in told and "no_half_vae" in told
    assert family.take_notices() == ()
    for key, latent in latents.kept.items():  # its weights were rounded to 16 bits
        assert torch.allclose(latent.mean_Chw, expected.kept[key].mean_Chw, atol=0.05)


def test_a_vae_that_overflows_even_in_32_bits_is_told(images, family):
    overflowing(family, always=True)
    with pytest.raises(DatasetError, match=r"no finite latents for one\.png"):
        latents_of(plan_for(images), family)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("damage", ["cut", "garbled"])
def test_a_broken_picture_is_named(images, family, live, damage):
    plan = plan_for(images)
    victim = images / "1_thing" / "two.png"
    whole = victim.read_bytes()
    middle = len(whole) // 2
    rest = b"" if damage == "cut" else b"\xff" * 40 + whole[middle + 40 :]
    victim.write_bytes(whole[:middle] + rest)
    with pytest.raises(DatasetError, match=r"two\.png"):
        if live:
            latents = OnTheFlyLatents(latent_encoder(plan, family))
            for image in range(3):
                latents.of(ImageUse(image, 0), epoch=0)
        else:
            latents_of(plan, family)


def test_a_picture_that_went_away_is_named(images, family):
    plan = plan_for(images, **DISK)
    (images / "1_thing" / "two.png").unlink()
    with pytest.raises(DatasetError, match=r"two\.png"):
        latents_of(plan, family)


# --------------------------------------------------------------------------------------- words


@pytest.mark.parametrize("changes", [{}, {"clip_skip": 2, "max_token_length": 150}], ids=str)
def test_cached_words_are_those_of_live_encoding(images, family, changes):
    plan = plan_for(images, **WORDS_DISK, **changes)
    text = conditioner(plan, family)
    with torch.no_grad():
        live = text.embeds(list(CAPTIONS.values()))
    for _ in range(2):  # made, then read from the disk
        text_embeds = text_embeds_of(plan, family).of(list(CAPTIONS.values()))
        assert torch.allclose(text_embeds.hidden_BND, live.hidden_BND, atol=1e-5)
        assert text_embeds.pooled_BP is None


def test_sdxls_pooled_words_are_kept_too(images, folder_xl):
    family = load_tiny(folder_xl)
    plan = plan_for(images, **WORDS_DISK, max_token_length=225)
    captions = ["a dog, running", "a zib ball"]
    with torch.no_grad():
        live = conditioner(plan, family).embeds(captions)
    for _ in range(2):
        text_embeds = text_embeds_of(plan, family).of(captions)
        assert torch.allclose(text_embeds.hidden_BND, live.hidden_BND, atol=1e-5)
        assert torch.allclose(text_embeds.pooled_BP, live.pooled_BP, atol=1e-5)


def test_each_caption_is_encoded_once_for_all_runs(images, family, asked_of):
    asked = asked_of(family, "encode_tokens")
    plan = plan_for(images, **WORDS_DISK)
    text_embeds_of(plan, family)
    assert sum(asked) == 2  # two of the three captions are the same
    text_embeds_of(plan, family)
    assert sum(asked) == 2
    assert len(shelved(images, "captions")) == 2


def another_caption(images: Path, family: Family) -> dict:
    (images / "1_thing" / "two.txt").write_text("a cat")
    return {}


def another_encoder(images: Path, family: Family) -> dict:
    next(family.text_encoders[0].parameters()).add_(0.1)
    return {}


def another_layer(images: Path, family: Family) -> dict:
    return {"clip_skip": 2}


def another_length(images: Path, family: Family) -> dict:
    return {"max_token_length": 150}


@pytest.mark.parametrize(
    ("change", "anew"),
    [(another_caption, 1), (another_encoder, 2), (another_layer, 2), (another_length, 2)],
)
def test_what_changed_in_words_is_encoded_anew(images, family, asked_of, change, anew):
    text_embeds_of(plan_for(images, **WORDS_DISK), family)
    with torch.no_grad():
        changes = change(images, family)
    asked = asked_of(family, "encode_tokens")
    plan = plan_for(images, **WORDS_DISK, **changes)
    captions = [image.caption for image in plan.images]
    cached = text_embeds_of(plan, family).of(captions)
    assert sum(asked) == anew
    with torch.no_grad():
        live = conditioner(plan, family).embeds(captions)
    assert torch.allclose(cached.hidden_BND, live.hidden_BND, atol=1e-5)


def test_the_second_encoder_of_sdxl_counts_as_well(images, folder_xl):
    family = load_tiny(folder_xl)
    plan = plan_for(images, **WORDS_DISK)
    before = text_embeds_of(plan, family).of(["a zib ball"])
    with torch.no_grad():
        family.text_encoder_2.text_projection.weight.mul_(2)
    after = text_embeds_of(plan, family).of(["a zib ball"])
    assert torch.allclose(after.pooled_BP, 2 * before.pooled_BP, atol=1e-5)


def test_damaged_words_are_ignored_and_written_anew(images, family):
    plan = plan_for(images, **WORDS_DISK)
    before = text_embeds_of(plan, family).of(["a zib ball"])
    for victim in shelved(images, "captions"):
        victim.write_bytes(victim.read_bytes()[:100])
    after = text_embeds_of(plan, family).of(["a zib ball"])
    assert torch.allclose(after.hidden_BND, before.hidden_BND, atol=1e-6)
    assert all("hidden" in load_file(path) for path in shelved(images, "captions"))


def test_a_cache_that_is_trusted_is_not_compared(tmp_path, family):
    images = paint_all(tmp_path / "images", CAPTIONS)
    trusting = {**DISK, "skip_cache_check": True}
    first, _ = outcome(run_latents(plan_for(images, **trusting), family))
    paint(images / "1_thing" / "one.png", seed=9)
    again, _ = outcome(run_latents(plan_for(images, **trusting), family))
    looked, _ = outcome(run_latents(plan := plan_for(images, **DISK), family))
    number = next(i for i, image in enumerate(plan.images) if image.path.stem == "one")
    kept = [latents.kept[number, False].mean_Chw for latents in (first, again, looked)]
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[2])
