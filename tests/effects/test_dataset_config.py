"""What a dataset configuration says of a subset acts on that subset's images, and on no others."""

import json
from pathlib import Path

import pytest

from kit.dataset.batches import batch_at
from kit.dataset.subsets import ANYWHERE, OF_SUBSETS, OWN
from kit.lorafile.tensors import read_header
from tests.effects.observers import _all_of
from tests.effects.stage import BASE, DATASET, digest
from tests.support.toys import leave_after, lora, losses, run, same

LIVE = {"cache_latents": False}
MASKED = {"masked_loss": True, "alpha_mask": True}
SHUFFLED = "shuffle_caption = true\n"
WARMING = "token_warmup_step = 100\n"
# option: the line of the second subset, what else both sides have there, the run's settings
WAYS = {
    "shuffle_caption": ("shuffle_caption = true", "", {}),
    "keep_tokens": ("keep_tokens = 2", SHUFFLED, {}),
    "keep_tokens_separator": ('keep_tokens_separator = "zib"', SHUFFLED, {}),
    "caption_separator": ('caption_separator = " "', SHUFFLED, {}),
    "secondary_separator": ('secondary_separator = " b"', "", {}),
    "enable_wildcard": ("enable_wildcard = true", "", {}),
    "caption_prefix": ('caption_prefix = "photo of"', "", {}),
    "caption_suffix": ('caption_suffix = "in the sun"', "", {}),
    "caption_dropout_rate": ("caption_dropout_rate = 0.5", "", {}),
    "caption_tag_dropout_rate": ("caption_tag_dropout_rate = 0.5", "", {}),
    "caption_dropout_every_n_epochs": ("caption_dropout_every_n_epochs = 1", "", {}),
    "token_warmup_step": ("token_warmup_step = 100", "", {}),
    "token_warmup_min": ("token_warmup_min = 3", WARMING, {}),
    "caption_extension": ('caption_extension = ".caption"', "", {}),
    "class_tokens": ('class_tokens = "something"', 'image_dir = "reg/1_ball"\n', {}),
    "flip_aug": ("flip_aug = true", "", {}),
    "color_aug": ("color_aug = true", "", LIVE),
    "random_crop": ("random_crop = true", "", LIVE),
    "alpha_mask": ("alpha_mask = true", "", {}),
    "conditioning_data_dir": ('conditioning_data_dir = "masks"', "", MASKED),
}
PLAIN: dict[str, list] = {}  # the sides without the line, which many rows share


def config(stage, *lines):
    """DATASET with more lines in its second subset, beside the folders that it names."""
    text = DATASET
    if "image_dir" in lines[0]:
        text = text.replace('image_dir = "flat"\n', "")
    path = stage.shared / f"{len(list(stage.shared.glob('data*.toml')))}.toml"
    path = path.with_stem(f"data-{path.stem}")
    path.write_text(text + "\n".join(lines))
    return {**BASE, "dataset_config": str(path)}


def batches(stage, lines, settings):
    """What each batch of two epochs holds, with the subset of its image."""
    changes = {**config(stage, *lines), **settings}
    with stage.prepared(stage.settings(changes)) as ready:
        plan, seen = ready.plan, []
        for number in range(2 * plan.batches_per_epoch):
            _, [use] = batch_at(plan.layout, number)
            made = digest(_all_of(ready, ready.batch_builder.batch(number)))
            seen.append((plan.images[use.image].subset, made))
        return seen


@pytest.mark.parametrize("name", WAYS)
def test_an_option_of_a_subset_acts_there_alone(stage, name):
    line, shared, settings = WAYS[name]
    key = f"{shared} {settings}"
    if key not in PLAIN:
        PLAIN[key] = batches(stage, [shared], settings)
    plain, other = PLAIN[key], batches(stage, [shared, line], settings)
    pairs = list(zip(plain, other, strict=True))
    assert all(a == b for a, b in pairs if a[0] == 0)
    assert any(a[1] != b[1] for a, b in pairs if a[0] == 1)


def test_every_option_is_shown():
    elsewhere = {*OWN} - {"class_tokens"}  # where images come from: tests/dataset/test_subsets.py
    elsewhere |= {"validation_split", "validation_count", "validation_seed"}  # tests/validation
    assert {*WAYS} == (ANYWHERE | OF_SUBSETS) - elsewhere


def several(stage):
    changes = config(
        stage, "shuffle_caption = true", "flip_aug = true", "caption_dropout_rate = 0.3",
        "[[datasets]]", "resolution = 64", "batch_size = 2", "enable_bucket = false",
        "[[datasets.subsets]]", 'image_dir = "images/2_zib ball"', "alpha_mask = true",
        "[[datasets.subsets]]", 'image_dir = "reg/1_ball"', "is_reg = true",
    )  # fmt: skip
    return {**changes, "max_train_steps": 4, "prior_loss_weight": 0.5}


def test_a_run_over_several_data_sets_goes_on_bit_for_bit(stage):
    straight, broken = (stage.settings(several(stage)) for _ in range(2))
    told = losses(run(straight))
    first = leave_after(2, broken)
    assert losses(first) + losses(run(broken)) == told
    one, other = (Path(asked.folders.output_dir) for asked in (straight, broken))
    assert same(lora(one), lora(other))


def test_cached_and_live_images_and_captions_are_the_same(stage):
    changes = {**several(stage), "text_encoder_lr": 0}
    live = batches_of(stage, {**changes, "cache_latents": False})
    assert batches_of(stage, changes) == live
    assert batches_of(stage, {**changes, "cache_latents_to_disk": True}) == live
    assert (stage.shared / ".kit_cache" / "latents").is_dir()


def batches_of(stage, changes):
    with stage.prepared(stage.settings(changes)) as ready:
        made = [ready.batch_builder.batch(number) for number in range(ready.plan.batches_per_epoch)]
        assert {len(batch.t_B) for batch in made} == {1, 2}
        return [(batch.latents_BChw.sum().item(), batch.tokens[0].tolist()) for batch in made]


def test_the_file_tells_its_data_sets(stage):
    changes = stage.settings(several(stage))
    with stage.prepared(changes) as ready:
        ready.checkpoint.write_file(ready.plan.run.file(""), 1, 1)
    told = read_header(ready.plan.run.file("")).metadata
    first, second = json.loads(told["ss_datasets"])
    assert (first["batch_size_per_device"], second["batch_size_per_device"]) == (1, 2)
    assert (first["resolution"], second["resolution"]) == ([128, 64], [64, 64])
    assert [subset["image_dir"] for subset in second["subsets"]] == ["2_zib ball", "1_ball"]
    assert (
        first["subsets"][1] | {"flip_aug": True, "shuffle_caption": True, "num_repeats": 2}
        == (first["subsets"][1])
    )
    assert json.loads(told["ss_dataset_dirs"]) == {
        "2_zib ball": {"n_repeats": 1, "img_count": 3},
        "flat": {"n_repeats": 2, "img_count": 3},
        "2_zib ball (2)": {"n_repeats": 1, "img_count": 3},
    }
    assert told["modelspec.resolution"] == "128x64"
    assert "ss_resolution" not in told
