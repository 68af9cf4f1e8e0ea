"""Settings and folders to numbers, against recorded layouts of the reference trainer."""

import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from kit.dataset.batches import batch_at
from kit.errors import DatasetError, SettingsError
from kit.planning import plan
from kit.planning.steps import total_steps, warmup_steps
from kit.runs import made_of
from kit.runs.made_of import FILE
from kit.runs.record import RunRecord, write_record
from kit.settings import Settings, declarations
from tests.support.pictures import draw, folder_of

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "steps.json").read_text())
CASES = {f"case {number}": case for number, case in enumerate(GOLDEN["cases"])}
COUNTED = {name: case for name, case in CASES.items() if "error" not in case}


@pytest.fixture
def planned(tmp_path):
    """Plan for folders of plain pictures, with settings by name."""

    def make(folders=None, *, reg=None, unfinished="ask", **values):
        train = tmp_path / "train"
        if not train.exists():
            folder_of(train, folders or {"10_cat": [(64, 64)] * 5})
            if reg:
                folder_of(tmp_path / "reg", reg)
        return plan(
            Settings().replace(
                **{
                    "train_data_dir": str(train),
                    "reg_data_dir": str(tmp_path / "reg") if reg else "",
                    "output_dir": str(tmp_path / "output"),
                    "pretrained_model_name_or_path": "base.safetensors",
                    "resolution": "64,64",
                    **values,
                }
            ),
            unfinished=unfinished,
        )

    return make


def settings_of(case):
    return {
        "resolution": case.get("resolution", "512,512"),
        "train_batch_size": case["batch"],
        "gradient_accumulation_steps": case["grad_accum"],
        "epoch": case.get("epochs", 1),
        "max_train_steps": case.get("max_train_steps"),
        "enable_bucket": case.get("bucket", True),
        "bucket_no_upscale": case.get("no_upscale", False),
        "min_bucket_reso": 64,
        "max_bucket_reso": 1024,
    }


def of_case(planned, case):
    return planned(case["case"]["train"], reg=case["case"].get("reg"), **settings_of(case["case"]))


# ----------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("case", COUNTED.values(), ids=COUNTED)
def test_counts_are_the_references(planned, case):
    found = of_case(planned, case)
    assert found.batches_per_epoch == case["batches_per_epoch"]
    assert found.steps_per_epoch == case["optimizer_steps_per_epoch"]
    assert found.total_steps == case["total_steps"]
    assert found.epochs == case["num_epochs_run"]
    assert [[list(size), count] for size, count in found.buckets.items()] == case["buckets"]
    assert sum(found.buckets.values()) == case["total_samples_per_epoch"]
    assert (
        sum(i.repeats for i in found.images if not i.is_reg)
        == (case["num_train_images_with_repeats"])
    )
    assert sum(i.repeats for i in found.images if i.is_reg) == case["num_reg_images_declared"]


@pytest.mark.parametrize("case", COUNTED.values(), ids=COUNTED)
def test_regularisation_images_are_repeated_as_by_the_reference(planned, case):
    found = of_case(planned, case)
    uses = {
        f"reg/{found.images[i].folder}/{found.images[i].path.name}": count
        for _, images in found.layout.buckets
        for i, count in images
        if found.images[i].is_reg
    }
    recorded = [n.removesuffix(" (reg)") for n in case["folder_order"] if n.endswith(" (reg)")]
    if recorded == sorted(recorded):
        assert uses == case["reg_image_repeats"]
    else:  # the reference takes folders as the file system lists them, and we by name
        assert Counter(uses.values()) == Counter(case["reg_image_repeats"].values())


def test_where_the_reference_divides_by_zero_the_image_is_named(planned):
    (case,) = (case for case in CASES.values() if "error" in case)
    with pytest.raises(
        DatasetError, match=r"Too small for buckets in steps of 64 pixels: \d+\.png"
    ):
        of_case(planned, case)


def test_many_small_images_are_counted_and_the_first_are_named(planned):
    with pytest.raises(DatasetError, match=r"and 3 more\.") as caught:
        planned({"1_a": [(20, 20)] * 8})
    assert "000.png (20 x 20)" in str(caught.value)
    assert "Turn bucket_no_upscale off" in str(caught.value)


def test_an_accumulated_step_takes_the_batches_that_the_reference_takes(planned):
    trace = GOLDEN["accumulation_trace"]
    found = planned({"1_a": [(64, 64)] * 4}, gradient_accumulation_steps=3, max_train_steps=4)
    windows = [found.micro_steps(step) for step in range(1, found.total_steps + 1)]
    assert [len(window) for window in windows] == trace["groups_per_epoch"] * trace["epochs"]
    assert [step for window in windows for step in window] == list(
        range(trace["micro_batches_consumed"])
    )
    assert found.steps_per_epoch == trace["optimizer_steps_per_epoch"]
    assert found.epochs == trace["epochs"]


@pytest.mark.parametrize("gathered", [1, 2, 3, 7, 100])
def test_windows_cover_every_batch_once_and_never_cross_an_epoch(planned, gathered):
    found = planned({"1_a": [(64, 64)] * 7}, gradient_accumulation_steps=gathered, epoch=3)
    steps = range(1, found.total_steps + 1)
    assert [n for step in steps for n in found.micro_steps(step)] == list(range(21))
    for step in steps:
        assert len({n // found.batches_per_epoch for n in found.micro_steps(step)}) == 1
        assert found.epoch_of(step) == found.micro_steps(step)[0] // found.batches_per_epoch + 1


def test_an_epoch_ends_with_its_last_step(planned):
    found = planned({"1_a": [(64, 64)] * 7}, gradient_accumulation_steps=3, epoch=2)
    assert [step for step in range(1, 7) if found.ends_epoch(step)] == [3, 6]
    assert [found.epochs_after(step) for step in (1, 2, 3, 6)] == [3 / 7, 6 / 7, 1, 2]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"epoch": 3}, 30),
        ({"epoch": 3, "max_train_steps": 0}, 30),
        ({"epoch": 3, "max_train_steps": 7}, 7),
        ({"epoch": 3, "max_train_steps": 7, "max_train_epochs": 2}, 20),
    ],
)
def test_the_length_comes_from_epochs_before_steps_before_epoch(values, expected):
    assert total_steps(Settings().replace(**values).basic, 10) == expected


@pytest.mark.parametrize(
    ("values", "total", "expected"),
    [
        ({}, 600, 60),
        ({}, 9, 0),
        ({"lr_warmup": 29}, 100, 29),
        ({"lr_warmup": 0.5}, 1000, 5),
        ({"lr_warmup": 100}, 37, 37),
        ({"lr_warmup": 0}, 600, 0),
        ({"lr_warmup_steps": 25}, 600, 25),
        ({"lr_warmup_steps": 700}, 600, 600),
        ({"lr_warmup_steps": 0}, 600, 0),
        ({"lr_scheduler": "constant"}, 600, 0),
        ({"lr_scheduler": "constant_with_warmup"}, 600, 60),
    ],
)
def test_the_warm_up_is_a_share_or_a_number_of_steps(values, total, expected):
    settings = Settings().replace(**values)
    assert warmup_steps(settings.basic, settings.rates, total) == expected


@pytest.mark.parametrize("percent", range(101))
def test_a_whole_percentage_of_a_hundred_steps_is_itself(percent):
    settings = Settings().replace(lr_warmup=percent)
    assert warmup_steps(settings.basic, settings.rates, 100) == percent


# ------------------------------------------------------------------------------ what is due


def test_files_are_due_at_epochs_and_not_at_the_end(planned):
    found = planned({"1_a": [(64, 64)] * 4}, epoch=6, save_every_n_epochs=2)
    due = {step: found.save_due(step) for step in range(1, 25) if found.save_due(step)}
    assert due == {8: "epoch", 16: "epoch"}


def test_files_are_due_at_steps_and_the_epochs_name_wins(planned):
    found = planned({"1_a": [(64, 64)] * 4}, epoch=3, save_every_n_steps=2)
    due = {step: found.save_due(step) for step in range(1, 13) if found.save_due(step)}
    assert due == {2: "step", 4: "epoch", 6: "step", 8: "epoch", 10: "step"}


@pytest.mark.parametrize("blank", [None, 0])
def test_no_interval_is_no_file_on_the_way(planned, blank):
    found = planned(epoch=3, save_every_n_epochs=blank, save_every_n_steps=blank)
    assert not any(found.save_due(step) for step in range(1, found.total_steps + 1))


def due_samples(found):
    return [step for step in range(found.total_steps + 1) if found.sample_due(step)]


def test_samples_are_due_at_steps(planned):
    found = planned(max_train_steps=10, sample_prompts="a", sample_every_n_steps=4)
    assert due_samples(found) == [4, 8]


def test_samples_at_epochs_win_over_samples_at_steps(planned):
    found = planned(
        {"1_a": [(64, 64)] * 4},
        epoch=4,
        sample_prompts="a",
        sample_every_n_steps=1,
        sample_every_n_epochs=2,
    )
    assert due_samples(found) == [8, 16]


def test_samples_may_come_before_the_first_step(planned):
    assert due_samples(planned(sample_prompts="a", sample_at_first=True)) == [0]


def test_without_prompts_no_sample_is_due(planned):
    assert due_samples(planned(sample_prompts="# none", sample_every_n_steps=1)) == []


# ------------------------------------------------------------------------------- the layout


def test_every_image_is_used_as_often_as_it_is_repeated(planned):
    found = planned(
        {"3_a": [(64, 64)] * 4, "2_b": [(64, 128)] * 3}, train_batch_size=4, resolution="128"
    )
    uses = Counter(
        use.image
        for step in range(found.batches_per_epoch)
        for use in batch_at(found.layout, step)[1]
    )
    assert uses == {i: image.repeats for i, image in enumerate(found.images)}


def test_regularisation_images_beyond_the_balance_take_turns(planned):
    found = planned({"2_a": [(64, 64)] * 2}, reg={"1_a": [(64, 64)] * 10})
    reg = {i for i, image in enumerate(found.images) if image.is_reg}

    def used(epoch):
        first = epoch * found.batches_per_epoch
        steps = range(first, first + found.batches_per_epoch)
        return {use.image for n in steps for use in batch_at(found.layout, n)[1]} & reg

    assert [len(used(epoch)) for epoch in range(3)] == [4, 4, 4]
    assert set.union(*(used(epoch) for epoch in range(3))) == reg


def test_the_order_of_folders_on_disk_does_not_matter(planned, tmp_path):
    first = planned({"2_b": [(64, 64)] * 3, "1_a": [(64, 64)] * 3}, seed=3)
    again = planned(seed=3)
    assert first.layout == again.layout
    assert [image.folder for image in first.images] == ["1_a"] * 3 + ["2_b"] * 3


# -------------------------------------------------------------------------- seeds and resume


@pytest.mark.parametrize("blank", [None, 0])
def test_a_blank_seed_is_drawn_and_told(planned, blank):
    found = planned(seed=blank)
    assert 0 < found.seed < 2**32
    assert found.settings.basic.seed == found.seed
    assert f"seed {found.seed}," in str(found)
    assert planned(seed=blank).seed != found.seed


def test_a_given_seed_is_kept(planned):
    assert planned(seed=42).seed == 42


def keep(found, step, *, finished=False):
    """What a run leaves behind."""
    found.run.own_state.mkdir(parents=True)
    (found.run.own_state / "state.pt").touch()
    write_record(found.run.dir, RunRecord(found.run.fingerprint, found.seed, step, finished))
    (found.run.dir / "run.toml").write_text(found.settings.to_toml(), "utf-8")
    assert made_of.keep(found.run.dir, found.made_of) == ""


def test_the_same_settings_go_on_with_the_seed_that_was_drawn(planned):
    first = planned(seed=None)
    keep(first, 20)
    again = planned(seed=None)
    assert (again.run.from_step, again.seed, again.run.name) == (20, first.seed, "last")
    assert f"goes on at step 20 of {again.total_steps}" in str(again)
    assert again.layout == first.layout


def test_the_runs_own_settings_file_goes_on_with_it(planned):
    first = planned(seed=None, unet_lr=None)
    keep(first, 20)
    again = plan(Settings.load(first.run.dir / "run.toml"))
    assert (again.run.from_step, again.seed, again.run.name) == (20, first.seed, "last")


def test_the_settings_file_of_the_defaults_is_the_same_run(planned, tmp_path):
    # A default such as 10 for 10.0 would read back as another value.
    first = planned()
    path = tmp_path / "run.toml"
    path.write_text(first.settings.to_toml(), "utf-8")
    assert plan(Settings.load(path)).run.fingerprint == first.run.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"log_with": "wandb"},
        {"logging_dir": "logs", "log_config": True},
        {"huggingface_repo_id": "anna/cats", "async_upload": True},
        {"metadata_title": "Cats", "training_comment": "soft"},
        {"sample_prompts": "a cat", "sample_every_n_epochs": 1},
    ],
)
def test_what_watches_a_run_or_labels_its_files_does_not_make_it_another(planned, change):
    keep(planned(seed=7), 20)
    assert planned(**{"seed": 7, **change}).run.from_step == 20


@pytest.mark.parametrize(
    "change",
    [{"network_dim": 4}, {"seed": 5}, {"epoch": 2}, {"learning_rate": 2e-4}, {"flip_aug": True}],
)
def test_changed_settings_are_a_new_run_under_a_new_name_and_it_is_told_why(planned, change):
    keep(planned(seed=7), 20)
    again = planned(**{"seed": 7, **change})
    assert (again.run.from_step, again.run.name, again.run.asks) == (0, "last-2", False)
    assert any("last is already there" in notice for notice in again.notices)
    (name,) = change
    (told,) = [text for text in again.notices if "last is not finished (step 20)" in text]
    assert f"was made otherwise: {name}: " in told
    assert f"resume = {again.run.output_dir / 'last.run'}" in told
    assert again.settings.folders.output_name == "last-2"


def asking(found):
    """The differences that a plan asks about, beside which nothing is begun."""
    assert found.run.asks
    assert (found.run.name, found.from_step) == ("last-2", 0)
    assert f"not finished (step 20), and was made otherwise: {found.run.unfinished.told}" in str(
        found
    )
    return found.run.unfinished.differences


def test_another_picture_is_asked_about(planned, tmp_path):
    keep(planned(seed=7), 20)
    draw(tmp_path / "train" / "10_cat" / "000.png", color="blue")
    assert asking(planned(seed=7)) == ("10_cat/000.png is another picture",)


def test_a_corrected_caption_is_asked_about_and_named_by_its_first_words(planned, tmp_path):
    folder_of(tmp_path / "train", {"10_cat": [(64, 64)] * 5})
    caption = tmp_path / "train" / "10_cat" / "003.txt"
    caption.write_text("a cat that sleeps " + "very " * 50, "utf-8")
    keep(planned(seed=7), 20)
    caption.write_text("a dog that sleeps", "utf-8")
    (told,) = asking(planned(seed=7))
    assert told.startswith('caption of 10_cat/003.png changed (it began "a cat that sleeps very')
    assert len(told) < 100
    kept = (tmp_path / "output" / "last.run" / FILE).read_text()
    assert "very " * 10 not in kept


def test_pictures_that_come_go_and_are_repeated_are_asked_about(planned, tmp_path):
    keep(planned(seed=7), 20)
    draw(tmp_path / "train" / "10_cat" / "new.png", color="blue")
    (tmp_path / "train" / "10_cat" / "001.png").unlink()
    assert set(asking(planned(seed=7))) == {"10_cat/new.png is new", "10_cat/001.png is gone"}
    (tmp_path / "train" / "10_cat" / "new.png").rename(tmp_path / "train" / "10_cat" / "001.png")
    (tmp_path / "train" / "10_cat").rename(tmp_path / "train" / "20_cat")
    told = asking(planned(seed=7))
    assert "20_cat/001.png is another picture" in told
    assert "repeats of 20_cat: 10 -> 20" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cross_attention": "xformers"}, "cross_attention: sdpa -> xformers"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing: false -> true"),
        ({"vae_batch_size": 2}, "vae_batch_size: 1 -> 2"),
        ({"mixed_precision": "no"}, "mixed_precision: fp16 -> no"),
    ],
)
def test_another_rounding_is_asked_about(planned, change, told):
    keep(planned(seed=7), 20)
    assert asking(planned(seed=7, **change)) == (told,)


def test_new_file_times_and_another_place_of_the_pictures_go_on(planned, tmp_path):
    keep(planned(seed=7), 20)
    for file in (tmp_path / "train").rglob("*.png"):
        os.utime(file, (1e9, 1e9))
    assert planned(seed=7).run.from_step == 20
    shutil.copytree(tmp_path / "train", tmp_path / "elsewhere")
    moved = planned(seed=7, train_data_dir=str(tmp_path / "elsewhere"))
    assert (moved.run.from_step, moved.run.name) == (20, "last")
    assert not any("otherwise" in text for text in moved.notices)
    (tmp_path / "elsewhere" / "10_cat").rename(tmp_path / "elsewhere" / "10_dog")
    told = asking(planned(seed=7, train_data_dir=str(tmp_path / "elsewhere")))
    assert all(text.startswith("caption of 10_dog/") for text in told)  # the folder's word


def test_the_base_model_may_move_and_not_become_another(planned, tmp_path):
    (tmp_path / "one.safetensors").write_bytes(b"a" * 300_000)
    keep(planned(seed=7, vae=str(tmp_path / "one.safetensors")), 20)
    shutil.copy(tmp_path / "one.safetensors", tmp_path / "two.safetensors")
    assert planned(seed=7, vae=str(tmp_path / "two.safetensors")).run.from_step == 20
    (tmp_path / "two.safetensors").write_bytes(b"a" * 299_999 + b"b")
    again = planned(seed=7, vae=str(tmp_path / "two.safetensors"))
    assert again.run.name == "last-2"
    assert any("vae: " in text and "is another one" in text for text in again.notices)


def test_what_is_only_written_drawn_cached_or_logged_otherwise_goes_on(planned):
    keep(planned(seed=7), 20)
    written = {
        "save_precision": "float", "save_every_n_epochs": 0, "save_every_n_steps": 5,
        "save_last_n_steps": 10, "save_last_n_epochs": 1, "save_state": True,
        "save_model_as": "ckpt",
    }  # fmt: skip
    drawn = {"sample_prompts": "a cat", "sample_every_n_steps": 3}
    cached = {"cache_latents": False, "cache_latents_to_disk": False}
    for others in (written, drawn, cached, {"log_with": "wandb", "logging_dir": "logs"}):
        assert planned(seed=7, **others).run.from_step == 20, others
    free = {name for name, declared in declarations().items() if declared.resumes == "freely"}
    named = {n for n in declarations() if n.startswith(("save_", "sample_", "cache_", "log_"))}
    assert named <= free


def test_captions_that_vary_are_drawn_otherwise_from_a_cache(planned):
    asked = {"seed": 7, "shuffle_caption": True, "text_encoder_lr": 0}
    keep(planned(**asked), 20)
    again = planned(**asked, cache_text_encoder_outputs=True)
    assert again.run.name == "last-2"
    assert any("cache_text_encoder_outputs: false -> true" in text for text in again.notices)


def test_going_on_with_it_is_told_and_a_new_run_beside_it_is_one_only_if_asked_for(planned):
    keep(planned(seed=None), 20)
    asked = {"seed": None, "gradient_checkpointing": True}
    on = planned(unfinished="go on", **asked)
    assert (on.run.name, on.run.from_step, on.run.asks) == ("last", 20, False)
    assert "goes on with last at step 20, although gradient_checkpointing: false -> true" in str(on)
    anew = planned(unfinished="begin anew", **asked)
    assert (anew.run.name, anew.run.from_step, anew.run.asks) == ("last-2", 0, False)
    assert "begins anew as last-2, as asked" in str(anew)
    keep(anew, 5)
    assert planned(**asked).run.name == "last-2"  # goes on with the one that was begun
    assert planned(seed=None).run.name == "last"


def test_what_was_left_behind_is_not_asked_about_for_ever(planned):
    keep(planned(seed=7), 20)
    anew = planned(unfinished="begin anew", seed=7, gradient_checkpointing=True)
    keep(anew, anew.total_steps, finished=True)
    third = planned(seed=7, vae_batch_size=2)
    assert (third.run.name, third.run.asks) == ("last-3", False)


def test_a_run_that_is_farther_than_the_whole_would_be_cannot_go_on(planned, tmp_path):
    keep(planned(seed=7), 20)
    for name in ("000", "001", "002", "003"):
        (tmp_path / "train" / "10_cat" / f"{name}.png").unlink()
    with pytest.raises(SettingsError, match=r"is at step 20 already[\s\S]*the whole run has 10"):
        planned(unfinished="go on", seed=7)
    assert planned(unfinished="begin anew", seed=7).total_steps == 10


def test_an_older_versions_run_goes_on_by_its_fingerprint_alone(planned, tmp_path):
    first = planned(seed=7)
    keep(first, 20)
    (first.run.dir / FILE).unlink()
    assert planned(seed=7).run.from_step == 20
    os.utime(tmp_path / "train" / "10_cat" / "000.png", (1e9, 1e9))
    again = planned(seed=7)
    assert again.run.name == "last-2"
    assert any("only a fingerprint is kept" in text for text in again.notices)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"settings": 1}', '{"pictures": [{}]}', "null"])
def test_a_damaged_account_of_what_it_is_made_of_counts_as_none(planned, text):
    first = planned(seed=7)
    keep(first, 20)
    (first.run.dir / FILE).write_text(text)
    assert planned(seed=7).run.from_step == 20


def test_each_picture_is_read_once_for_its_hash(planned, tmp_path, monkeypatch):
    made_of._hashed.cache_clear()
    read, digest = [], hashlib.file_digest
    monkeypatch.setattr(
        made_of.hashlib, "file_digest", lambda f, kind: read.append(f.name) or digest(f, kind)
    )
    keep(planned(seed=7), 20)
    assert len(read) == 5
    for file in (tmp_path / "train").rglob("*.png"):
        os.utime(file, (1e9, 1e9))
    for _ in range(3):
        assert planned(seed=7).run.from_step == 20
    assert len(read) == 10
    assert made_of.keep(tmp_path / "output" / "last.run", planned(seed=7).made_of) == ""
    made_of._hashed.cache_clear()  # another process
    assert planned(seed=7).run.from_step == 20
    assert len(read) == 10  # the run remembers their new times


def test_a_finished_run_is_not_gone_on_with(planned):
    first = planned(seed=7)
    keep(first, first.total_steps, finished=True)
    assert planned(seed=7).run.name == "last-2"


def test_another_name_or_place_is_another_run_with_the_same_fingerprint(planned, tmp_path):
    first = planned(seed=7)
    moved = planned(seed=7, output_name="cat", output_dir=str(tmp_path / "elsewhere"))
    assert first.run.fingerprint == moved.run.fingerprint


# -------------------------------------------------------------------------- words and errors


def test_the_plan_reads_as_sentences(planned):
    found = planned(
        {"10_cat": [(64, 64)] * 5, "2_dog": [(64, 128)]},
        reg={"3_cat": [(64, 64)] * 20},
        train_batch_size=2,
        gradient_accumulation_steps=2,
        epoch=2,
        seed=1,
        resolution="96,96",
    )
    assert list(found.lines())[:4] == [
        "6 images, with repeats 52, and 20 regularisation images, balanced to 54",
        "2 buckets: 64x64 (104), 64x128 (2)",
        "106 images an epoch / batch 2 = 53 batches / 2 gathered = 27 steps an epoch",
        "2 epochs, 54 steps in all, warm-up 5 steps",
    ]


def test_one_is_not_written_as_many(planned):
    found = planned({"1_cat": [(64, 64)]}, lr_warmup_steps=1)
    assert list(found.lines())[:4] == [
        "1 image, with repeats 1",
        "1 bucket: 64x64 (1)",
        "1 image an epoch / batch 1 = 1 batch = 1 step an epoch",
        "1 epoch, 1 step in all, warm-up 1 step",
    ]


def test_numbers_for_programs_are_those_of_the_plan(planned):
    found = planned(epoch=2, sample_prompts="a", sample_every_n_epochs=1, seed=3)
    numbers = json.loads(found.to_json())
    assert numbers["images"] == 5
    assert numbers["buckets"] == {"64x64": 50}
    assert (numbers["steps_per_epoch"], numbers["total_steps"]) == (50, 100)
    assert (numbers["saves"], numbers["samples"]) == ([50], [50, 100])
    assert (numbers["seed"], numbers["from_step"]) == (3, 0)
    assert numbers["output"].endswith("last.safetensors")
    assert numbers["notices"] == list(found.notices)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"pretrained_model_name_or_path": ""}, "choose a base model before training"),
        ({"cache_latents": False, "vae_batch_size": 4}, "vae_batch_size has no effect"),
        ({"learning_rate": 1e-3}, "learning_rate has no effect"),
        ({"lr_scheduler": "constant"}, "lr_warmup has no effect: lr_scheduler = constant does"),
        ({"lr_scheduler_type": "LinearLR"}, "lr_scheduler_type = LinearLR does not warm up"),
        ({}, "no image has a caption file"),
        ({"dataset_repeats": 5}, "dataset_repeats has no effect: no image lies directly in"),
        ({"sdxl": True, "clip_skip": 2}, "clip_skip has no effect: the base model is a Stable D"),
        (
            {"v2": True, "v_parameterization": True, "v_pred_like_loss": 0.5},
            "training would be refused: v_pred_like_loss is for models that predict noise",
        ),
    ],
)
def test_what_is_worth_knowing_is_a_notice(planned, values, told):
    found = planned(**values)
    assert any(told in notice for notice in found.notices)
    assert f"! {next(notice for notice in found.notices if told in notice)}" in str(found)


def test_strongly_cut_images_are_named(planned):
    found = planned({"1_a": [(64, 64), (64, 100)]}, resolution="128")
    assert "more than a quarter is cut away from 001.png" in found.notices


def test_single_image_buckets_are_told(planned):
    found = planned(
        {"2_a": [(64, 64), (64, 128), (128, 64)]}, train_batch_size=2, resolution="96,96"
    )
    assert any("3 of 3 buckets hold a single image" in notice for notice in found.notices)


def test_all_contradictions_are_told_at_once_and_before_the_folders(planned):
    with pytest.raises(SettingsError) as caught:
        planned(unet_lr=0, text_encoder_lr=0, bucket_reso_steps=50, train_data_dir="/nowhere")
    assert len(caught.value.problems) == 2


def test_bucket_bounds_are_refused_before_any_image_is_blamed(planned):
    with pytest.raises(SettingsError, match="min_bucket_reso"):
        planned({"1_a": [(8, 8)]}, bucket_no_upscale=False, min_bucket_reso=512)


def test_a_missing_folder_is_refused(planned):
    with pytest.raises(DatasetError, match="does not exist"):
        planned(train_data_dir="/nowhere/at/all")


@pytest.mark.parametrize(("drawn", "seed"), [(0, 1), (2**32 - 2, 2**32 - 1)])
def test_a_blank_seed_becomes_any_that_every_library_takes(drawn, seed, planned, monkeypatch):
    monkeypatch.setattr("secrets.randbelow", lambda end: drawn if drawn < end else None)
    assert planned(seed=0).seed == seed


def test_without_decay_steps_nothing_decays(planned):
    assert planned(lr_scheduler="constant", lr_decay_steps=None).schedule_params.decay == 0
