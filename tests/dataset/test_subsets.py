"""Dataset configurations: what counts where, what is refused, what each image is trained with."""

import json

import pytest

from kit import planning
from kit.dataset.batches import batch_at
from kit.dataset.subsets import ANYWHERE, OF_DATASETS, OF_SUBSETS, OWN, SETTINGS
from kit.errors import DatasetError, SettingsError
from kit.settings import Settings, declarations
from tests.support.pictures import draw, folder_of


@pytest.fixture
def planned(tmp_path):
    """A plan over a configuration; folders cats, dogs and class hold two, one, three pictures."""
    square = (64, 64)
    folder_of(tmp_path, {"cats": [square, (128, 64)], "10_dogs": [square], "class": [square] * 3})

    def made(config, name="data.toml", **changes):
        (tmp_path / name).write_text(config)
        asked = {
            "dataset_config": str(tmp_path / name), "output_dir": str(tmp_path / "out"),
            "resolution": "64,64", "seed": 1, "min_bucket_reso": 64, "bucket_no_upscale": False,
        }  # fmt: skip
        return planning.plan(Settings().replace(**asked | changes))

    return made


TWO = """
[general]
shuffle_caption = true
num_repeats = 3

[[datasets]]
resolution = 64
batch_size = 2

  [[datasets.subsets]]
  image_dir = "cats"
  shuffle_caption = false
  flip_aug = true

  [[datasets.subsets]]
  image_dir = "10_dogs"
  class_tokens = "a dog"
  num_repeats = 5

[[datasets]]
resolution = [128, 64]
enable_bucket = false

  [[datasets.subsets]]
  image_dir = "cats"
"""


def test_the_first_of_subset_dataset_general_and_settings_counts(planned):
    plan = planned(TWO, keep_tokens=4, train_batch_size=7)
    cats, dogs, large = plan.subsets
    shuffled = [subset.settings.captions.shuffle_caption for subset in plan.subsets]
    assert shuffled == [False, True, True]
    assert [subset.settings.images.flip_aug for subset in plan.subsets] == [True, False, False]
    assert [subset.num_repeats for subset in plan.subsets] == [3, 5, 3]
    assert [subset.settings.basic.train_batch_size for subset in plan.subsets] == [2, 2, 7]
    assert {subset.settings.captions.keep_tokens for subset in plan.subsets} == {4}
    assert (cats.settings.images.size, large.settings.images.size) == ((64, 64), (128, 64))
    assert [image.subset for image in plan.images] == [0, 0, 1, 2, 2]
    assert plan.settings_of(2) is dogs.settings
    assert plan.size == (128, 64)


def test_every_data_set_has_its_own_buckets_and_batches(planned):
    plan = planned(TWO, train_batch_size=7)
    one, other = plan.layout.parts
    assert (one.batch_size, other.batch_size) == (2, 7)
    assert {fit.bucket for fit in plan.fits[3:]} == {(128, 64)}  # no buckets there
    seen = {}
    for number in range(plan.batches_per_epoch):
        size, uses = batch_at(plan.layout, number)
        sets = {plan.subsets[plan.images[use.image].subset].dataset for use in uses}
        assert len(sets) == 1
        assert {plan.fits[use.image].bucket for use in uses} == {size}
        for use in uses:
            seen[use.image] = seen.get(use.image, 0) + 1
    assert seen == {0: 3, 1: 3, 2: 5, 3: 3, 4: 3}


def test_regularisation_is_balanced_within_its_data_set(planned):
    plan = planned("""
    [[datasets]]
      [[datasets.subsets]]
      image_dir = "10_dogs"
      num_repeats = 4
      [[datasets.subsets]]
      image_dir = "class"
      is_reg = true
    [[datasets]]
      [[datasets.subsets]]
      image_dir = "cats"
    """)
    first, second = plan.layout.parts
    assert sum(count for _, images in first.buckets for _, count in images) == 8
    assert sum(count for _, images in second.buckets for _, count in images) == 2
    assert [image.is_reg for image in plan.images] == [False] + [True] * 3 + [False] * 2


def test_the_plan_shows_each_subset(planned):
    text = str(planned(TWO))
    assert "data set 1, cats: 2 images x 3, up to 64x64, batch 2; its own" in text
    assert "data set 1, 10_dogs: 1 image x 5" in text
    assert "data set 2, cats: 2 images x 3, 128x64, batch 1" in text
    assert "the 10 of the folder's name does not count here: num_repeats = 5 does" in text
    assert "class_tokens is the caption" in text
    alone = str(planned(TWO.replace('class_tokens = "a dog"', 'class_tokens = " "')))
    told = "class_tokens is blank, so they have no caption of their own: 000.png"
    assert f"data set 1, 10_dogs: no image has a caption file; {told}" in alone
    assert "1 image trained without any words: 000.png" in alone
    assert "batch 2 and 1" in text


def test_captions_are_those_of_the_subset(planned, tmp_path):
    (tmp_path / "cats" / "000.txt").write_text("from txt")
    (tmp_path / "cats" / "000.words").write_text("from words")
    config = """
    [[datasets]]
      [[datasets.subsets]]
      image_dir = "cats"
      caption_extension = "words"
      class_tokens = "a cat"
    """
    assert [image.caption for image in planned(config).images] == ["from words", "a cat"]


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_metadata_file_names_images_with_caption_and_tags(planned, tmp_path, ending):
    entries = {
        "000.png": {"caption": "one line\nanother", "tags": "red, round"},
        "001": {"tags": "wide\nlow", "train_resolution": [1, 1]},  # without its ending
    }
    rows = [json.dumps({"image_path": name, **entry}) for name, entry in entries.items()]
    text = json.dumps(entries) if ending == "json" else "\n".join(rows)
    (tmp_path / f"meta.{ending}").write_text(text)
    plan = planned(f"""
    [[datasets]]
      [[datasets.subsets]]
      image_dir = "cats"
      metadata_file = "meta.{ending}"
      num_repeats = 2
    """)
    assert [image.path.name for image in plan.images] == ["000.png", "001.png"]
    assert [image.caption for image in plan.images] == [
        "one line, red, round\nanother, red, round",
        "wide,low",
    ]
    assert {image.repeats for image in plan.images} == {2}


def test_a_json_configuration_is_read_and_null_means_not_given(planned):
    subsets = [{"image_dir": "cats", "keep_tokens": None}]
    config = {"general": {"keep_tokens": 2}, "datasets": [{"subsets": subsets}]}
    plan = planned(json.dumps(config), "data.json")
    assert plan.settings_of(0).captions.keep_tokens == 2


def one(subset='image_dir = "cats"', dataset="", general=""):
    return f"""
    [general]
    {general}
    [[datasets]]
    {dataset}
      [[datasets.subsets]]
      {subset}
    """


CATS = 'image_dir = "cats"\n'


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("what", "is no TOML file"),
        ("", "[[datasets]] is missing"),
        ("[general]\n[datasets]", "no list of tables"),
        ("[[datasets]]\nresolution = 64", "data set 1: [[datasets.subsets]] is missing"),
        ("surprise = 1\n" + one(), "'surprise' is no part of it"),
        (one(CATS + "flip_aig = true"), "there is no flip_aig; did you mean flip_aug?"),
        (one(CATS + "resolution = 64"), "resolution does not stand here, but in [general]"),
        (one(general="is_reg = true"), "is_reg does not stand here, but in [[datasets.subsets]]"),
        (one("flip_aug = true"), "data set 1, subset 1: image_dir is missing"),
        (one(CATS + 'num_repeats = "3"'), "num_repeats = '3' is not a whole number"),
        (one(CATS + "num_repeats = 0"), "num_repeats = 0 is not a whole number from 1"),
        (one(CATS + "is_reg = 1"), "is_reg = 1 is not true or false"),
        (one(CATS + "keep_tokens = -1"), "[captions] keep_tokens: -1"),
        (one(dataset='resolution = "big"'), "[images] resolution: 'big' is no size"),
        (one(dataset="validation_split = 1.1"), "validation_split: 1.1 is outside"),
        (one(CATS + "validation_split = 1.0"), "validation_split: 1 leaves nothing to train"),
        (one(CATS + "face_crop_aug_range = [1.0, 2.0]"), "face_crop_aug_range"),
        (one(CATS + 'resize_interpolation = "cubic"'), "resize_interpolation"),
        (one(CATS + "custom_attributes = {diff_output_preservation = true}"), "custom_attributes"),
        (one(CATS + "random_crop = true"), "a cached latent is always cut at the same place"),
        (one(CATS + "color_aug = true"), "a cached latent always has the same colours"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_its_place(planned, config, told):
    with pytest.raises(SettingsError) as refused:
        planned(config)
    assert told in str(refused.value)


def test_everything_wrong_is_told_at_once(planned):
    with pytest.raises(SettingsError) as refused:
        planned(one("flip_aig = true\nnum_repeats = 0", "enable_bucket = 3", "keep_tokens = true"))
    assert len(refused.value.problems) == 4


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (one('image_dir = "nowhere"'), "image_dir = nowhere is no folder"),
        (one('image_dir = "."'), "there is no image that can be read"),
        (one(CATS + "is_reg = true"), "data set 1 holds regularisation images alone"),
        (one('metadata_file = "none.json"'), "none.json cannot be read"),
    ],
)
def test_missing_images_are_told(planned, config, told):
    with pytest.raises(DatasetError) as refused:
        planned(config)
    assert told in str(refused.value)


def test_metadata_of_missing_images_is_refused(planned, tmp_path):
    (tmp_path / "meta.json").write_text(json.dumps({"000.png": {}, "lost.png": {}}))
    with pytest.raises(DatasetError, match=r"not there: lost\.png"):
        planned(one(CATS + 'metadata_file = "meta.json"'))


def test_what_asks_for_nothing_is_taken(planned):
    harmless = "network_multiplier = 1.0"
    assert planned(one(CATS + "cache_info = true", harmless)).images


def test_what_the_configuration_replaces_is_told(planned, tmp_path):
    given = one(CATS, "batch_size = 2")
    notices = planned(given, train_data_dir="x", reg_data_dir="y", train_batch_size=3).notices
    for name in ("train_data_dir", "reg_data_dir", "train_batch_size"):
        assert any(text.startswith(f"{name} has no effect") for text in notices)


def test_a_notice_of_one_subset_names_it(planned):
    [told] = [text for text in planned(TWO.replace("flip_aug = true", "keep_tokens = 1")).notices
              if "keep_tokens" in text]  # fmt: skip
    assert told.startswith("data set 1, cats: keep_tokens has no effect")


def test_another_content_is_another_run_and_another_place_is_not(planned, tmp_path):
    before = planned(TWO).run.fingerprint
    assert planned(TWO, "moved.toml").run.fingerprint == before
    assert planned(TWO.replace("num_repeats = 5", "num_repeats = 6")).run.fingerprint != before
    assert planned(TWO.replace("flip_aug = true", "")).run.fingerprint != before
    draw(tmp_path / "cats" / "002.png")
    assert planned(TWO).run.fingerprint != before


def test_every_name_is_a_setting_or_a_subsets_own():
    names = {SETTINGS.get(name, name) for name in ANYWHERE | OF_DATASETS | OF_SUBSETS}
    assert names <= {*declarations(), *OWN}
