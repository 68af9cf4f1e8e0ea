"""Images of the same name in two folders: nothing of the one is taken for the other's."""

import json

import pytest
import torch
from PIL import Image

from kit import planning
from kit.dataset.batches import ImageUse, batch_at
from kit.events import Sampled
from kit.lorafile.dataset_metadata import dataset_metadata
from kit.training.preparation import prepare
from tests.support.parts import outcome, paint
from tests.support.tiny import write_tiny
from tests.support.toys import run, toy_settings

CAPTIONS = {"2_a": "an apple", "3_b": "a boat, red"}
GREY = {"2_a": 0, "3_b": 255}  # of the masks: nothing of the one is learned, all of the other


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1")


@pytest.fixture
def folders(tmp_path):
    """2_a/x.png and 3_b/x.png, each with a caption and a mask of its own."""
    for seed, (folder, caption) in enumerate(CAPTIONS.items()):
        picture = paint(tmp_path / "images" / folder / "x.png", size=(128, 64), seed=seed)
        picture.with_suffix(".txt").write_text(caption, "utf-8")
        mask = tmp_path / "masks" / folder / "x.png"
        mask.parent.mkdir(parents=True)
        Image.new("L", (128, 64), GREY[folder]).save(mask)
    return tmp_path


def asked(model, folders, **changes):
    masks = {"masked_loss": True, "conditioning_data_dir": str(folders / "masks")}
    return toy_settings(model, folders / "images", folders / "out", **masks | changes)


@pytest.mark.parametrize("cached", [False, True])
def test_a_black_mask_on_one_of_them_makes_its_loss_exactly_nothing(model, folders, cached):
    plan = planning.plan(asked(model, folders, cache_latents=cached))
    ready, _ = outcome(prepare(plan))
    try:
        told = {0: [], 1: []}
        for number in range(plan.batches_per_epoch):
            _, [use] = batch_at(plan.layout, number)
            told[use.image].append(
                ready.training_step.loss(ready.batch_builder.batch(number)).mean().item()
            )
    finally:
        ready.close()
    assert told[0] == [0.0] * 2
    assert len(told[1]) == 3
    assert min(told[1]) > 0.01


def test_captions_latents_and_words_are_their_own_even_from_the_disk(model, folders):
    def seen(**changes):
        plan = planning.plan(asked(model, folders, text_encoder_lr=0, **changes))
        ready, _ = outcome(prepare(plan))
        try:
            batch_builder = ready.batch_builder
            latents = [
                batch_builder.latents.of(ImageUse(image, 0), epoch=0).mean_Chw for image in (0, 1)
            ]
            captions = [batch_builder._caption(ImageUse(image, 0), 0) for image in (0, 1)]
            words = (
                [batch_builder.text_embeds.of([text]).hidden_BND for text in captions]
                if batch_builder.text_embeds
                else []
            )
            return latents, captions, words
        finally:
            ready.close()

    live, captions, _ = seen(cache_latents=False)
    assert captions == list(CAPTIONS.values())
    assert not torch.allclose(live[0], live[1], atol=0.01)
    disk = {
        "cache_latents_to_disk": True,
        "cache_text_encoder_outputs": True,
        "cache_text_encoder_outputs_to_disk": True,
    }
    for _ in range(2):  # written, then read
        latents, captions, words = seen(**disk)
        assert captions == list(CAPTIONS.values())
        assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(live, latents, strict=True))
        assert not torch.allclose(words[0], words[1], atol=0.01)


def test_metadata_are_their_own(model, folders):
    told = dataset_metadata(planning.plan(asked(model, folders)))
    assert json.loads(told["ss_dataset_dirs"]) == {
        "2_a": {"n_repeats": 2, "img_count": 1},
        "3_b": {"n_repeats": 3, "img_count": 1},
    }
    assert json.loads(told["ss_tag_frequency"]) == {
        "2_a": {"an apple": 1},
        "3_b": {"a boat": 1, "red": 1},
    }


def test_metadata_of_two_subsets_of_one_name_are_their_own(model, folders):
    for parent, folder in (("p", "2_a"), ("q", "3_b")):
        (folders / parent).mkdir()
        (folders / "images" / folder).rename(folders / parent / "cats")
        (folders / "masks" / folder).rename(folders / f"masks {parent}")
    subsets = [
        f"""
        [[datasets.subsets]]
        image_dir = "{parent}/cats"
        num_repeats = {repeats}
        conditioning_data_dir = "masks {parent}"
        """
        for parent, repeats in (("p", 2), ("q", 3))
    ]
    config = folders / "data.toml"
    config.write_text("\n".join(["[[datasets]]", *subsets]), "utf-8")
    settings = asked(
        model, folders, train_data_dir="", dataset_config=str(config), conditioning_data_dir=""
    )
    plan = planning.plan(settings.replace(alpha_mask=True))
    assert [image.caption for image in plan.images] == list(CAPTIONS.values())
    told = dataset_metadata(plan)
    assert json.loads(told["ss_tag_frequency"]) == {
        "cats": {"an apple": 1},
        "cats (2)": {"a boat": 1, "red": 1},
    }
    ready, _ = outcome(prepare(plan))
    try:
        masks = [
            ready.batch_builder.latents.of(ImageUse(image, 0), epoch=0).mask_hw for image in (0, 1)
        ]
    finally:
        ready.close()
    assert [mask.unique().tolist() for mask in masks] == [[0.0], [1.0]]


def test_samples_of_equal_prompts_are_their_own(model, folders):
    events = run(
        asked(
            model, folders, max_train_steps=1, sample_at_first=True,
            sample_prompts="a boat --w 64 --h 64 --s 1 --d 1\na boat --w 64 --h 64 --s 1 --d 2",
        )
    )  # fmt: skip
    paths = [event.path for event in events if isinstance(event, Sampled)]
    assert len(paths) == len(set(paths)) == 2
    pictures = [Image.open(path).tobytes() for path in paths]
    assert pictures[0] != pictures[1]
