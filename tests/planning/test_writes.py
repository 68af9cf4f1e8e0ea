"""What a run will write, and whether there is room for it, before torch is loaded."""

import math
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import Parameter

import kit
from kit.errors import SettingsError
from kit.planning import writes
from kit.planning.lora_size import network_size
from kit.planning.writes import Length, foreseen, state_bytes
from kit.runs import disk
from kit.runs.run import Run
from kit.settings import Settings
from kit.settings.prompts import parse_prompts
from kit.training.state_file import bytes_of
from tests.optim.resuming import learn, optimization_of
from tests.support.toys import draw_images, toy_settings

Usage = namedtuple("Usage", "total used free")
SHAPES = ((16, 320), (320, 16), (16, 768), (768, 16), (1280, 16))


def written(out, length, *, captions=("a",), buckets=((512, 512),), family="sd1", **changes):
    settings = Settings().replace(
        **{"optimizer_type": "AdamW", "train_data_dir": str(out / "images")} | changes
    )
    planned = SimpleNamespace(
        settings=settings,
        images=[SimpleNamespace(caption=caption) for caption in captions],
        fits=[SimpleNamespace(bucket=bucket) for bucket in buckets],
        prompts=parse_prompts(settings.samples.sample_prompts),
        run=Run(out, "cat", "safetensors", "f"),
        total_steps=length.total,
        steps_per_epoch=length.per_epoch,
        from_step=length.done,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writes, "family_of", lambda model: family)
        return foreseen(planned)


def counts(found):
    return {part.noun: part.count for part in (*found.output, *found.cache)}


@pytest.mark.parametrize(
    ("changes", "files", "states"),
    [
        ({"save_every_n_epochs": 0}, 1, 3),
        ({"save_every_n_epochs": 1}, 10, 3),
        ({"save_every_n_epochs": 2}, 5, 3),
        ({"save_every_n_epochs": 1, "save_last_n_epochs": 3}, 5, 3),
        ({"save_every_n_epochs": 0, "save_every_n_steps": 7}, 15, 3),
        ({"save_every_n_epochs": 1, "save_every_n_steps": 5}, 20, 3),
        ({"save_every_n_epochs": 0, "save_every_n_steps": 7, "save_last_n_steps": 20}, 5, 3),
        ({"save_every_n_epochs": 2, "save_state": True}, 5, 8),
        (
            {"save_every_n_epochs": 2, "save_state": True, "save_last_n_epochs_state": 1},
            5,
            6,
        ),
        ({"save_every_n_epochs": 0, "save_state_on_train_end": True}, 1, 4),
    ],
)
def test_files_and_states_are_counted_as_they_lie_together(tmp_path, changes, files, states):
    found = counts(written(tmp_path, Length(100, 10), **changes))
    assert (found["LoRA file"], found["state"]) == (files, states)


@pytest.mark.parametrize("epochs", [0, 1, 3])
@pytest.mark.parametrize("steps", [None, 4, 7, 10, 15])
@pytest.mark.parametrize("done", [0, 33])
def test_files_are_those_that_the_plan_says_are_due(tmp_path, epochs, steps, done, monkeypatch):
    plan = kit.plan(
        toy_settings(
            "", draw_images(tmp_path / "images"), tmp_path / "out",
            max_train_steps=95, save_every_n_epochs=epochs, save_every_n_steps=steps,
        )
    )  # fmt: skip
    due = sum(bool(plan.save_due(step)) for step in range(done + 1, plan.total_steps + 1))
    length = Length(plan.total_steps, plan.steps_per_epoch, done)
    assert sum(length.turns(epochs, steps)) == due


def test_sample_pictures_are_counted_for_each_prompt(tmp_path):
    samples = {"sample_prompts": "a\nb --w 256 --h 256", "sample_every_n_steps": 30}
    found = written(tmp_path, Length(100, 10, 40), resolution="512,512", **samples)
    [part] = [part for part in found.output if part.noun == "sample picture"]
    assert part.count == 2 * 2  # steps 60 and 90
    assert part.each == pytest.approx(1.5 * (512**2 + 256**2) / 2)


def test_what_lies_in_the_caches_already_is_not_written_again(tmp_path):
    disk_caches = {
        "cache_latents": True,
        "cache_latents_to_disk": True,
        "cache_text_encoder_outputs": True,
        "cache_text_encoder_outputs_to_disk": True,
        "text_encoder_lr": 0.0,
    }
    some = {"captions": ["a", "b", "a"], "buckets": [(512, 512)] * 3}
    found = written(tmp_path, Length(100, 10), **some, **disk_caches)
    assert {part.noun: (part.count, part.each) for part in found.cache} == {
        "latent": (3, 64 * 64 * 4 * 4 * 2),
        "caption": (2, 77 * 768 * 4),
    }
    folder = tmp_path / "images" / ".kit_cache" / "latents"
    folder.mkdir(parents=True)
    for name in "ab":
        (folder / name).touch()
    found = written(tmp_path, Length(100, 10), flip_aug=True, **some, **disk_caches)
    assert counts(found)["latent"] == 4


@pytest.mark.parametrize(
    "optimizer",
    ["AdamW", "AdamW8bit", "Lion", "Prodigy", "DAdaptAdan", "Adafactor", "SGDNesterov8bit"],
)
def test_a_state_is_as_large_as_is_said(optimizer):
    weights = tuple(Parameter(torch.randn(shape)) for shape in SHAPES)
    made = optimization_of(optimizer, weights)
    learn(made, weights, range(2))
    kept = bytes_of({"network": weights, "optimizer": made.optimizer.state_dict()})
    said = state_bytes(sum(math.prod(shape) for shape in SHAPES), optimizer)
    assert kept == pytest.approx(said, rel=0.03)


@pytest.fixture
def of_a_real_base(monkeypatch):
    monkeypatch.setattr(writes, "family_of", lambda model: "sd1")


def free(monkeypatch, size: float):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(0, 0, int(size)))


def test_the_plan_says_it_in_a_sentence(tmp_path, of_a_real_base, monkeypatch):
    free(monkeypatch, 52e9)
    settings = toy_settings("", draw_images(tmp_path / "images"), tmp_path / "out", network_dim=8)
    told = [line for line in kit.plan(settings).lines() if line.startswith("writes")]
    size = network_size(settings, "sd1")
    assert len(told) == 1
    assert f"of {size.bytes / 1e6:.3g} MB, 3 states of {size.weights * 12 / 1e6:.3g} MB" in told[0]
    assert told[0].endswith(f"; 52.0 GB are free in {tmp_path / 'out'}")


def test_a_run_that_does_not_fit_is_a_problem_of_the_output_folder(
    tmp_path, of_a_real_base, monkeypatch
):
    settings = toy_settings("", draw_images(tmp_path / "images"), tmp_path / "out", network_dim=8)
    size = network_size(settings, "sd1")
    least = 3 * size.weights * 12
    free(monkeypatch, least)
    with pytest.raises(SettingsError, match=r"\[folders\] output_dir: .* free in .* will write"):
        kit.plan(settings)


def test_states_that_will_be_overwritten_count_as_room(tmp_path, monkeypatch):
    length, once = Length(100, 10), {"save_every_n_epochs": 0}
    size = network_size(Settings().replace(optimizer_type="AdamW", **once), "sd1")
    free(monkeypatch, 2 * size.weights * 12)
    assert list(written(tmp_path, length, **once).problems())
    state = tmp_path / "cat.run" / "state"
    state.mkdir(parents=True)
    (state / "state.pt").write_bytes(b"x" * (size.bytes + size.weights * 12))
    assert list(written(tmp_path, length, **once).problems()) == []


def test_caches_on_the_same_disk_count_and_on_another_are_a_notice(tmp_path, monkeypatch):
    latents = {"cache_latents": True, "cache_latents_to_disk": True, "save_every_n_epochs": 0}
    found = written(tmp_path, Length(100, 10), buckets=[(1024, 1024)] * 20_000, **latents)
    free(monkeypatch, 5e9)
    [problem] = found.problems()
    assert "20000 latents of 0.524 MB" in problem
    assert list(found.notices()) == []
    monkeypatch.setattr(writes, "_disk", lambda place: Path(place).name)
    assert list(found.problems()) == []
    [notice] = found.notices()
    assert "about 10.5 GB, what does not fit stays in memory: 5.0 GB are free" in notice


@pytest.mark.parametrize("changes", [{"dim_from_weights": True}, {"block_dims": "8," * 24 + "8"}])
def test_where_the_network_is_not_known_beforehand_nothing_is_said(tmp_path, changes):
    assert written(tmp_path, Length(100, 10), **changes) is None


def test_an_output_folder_that_cannot_be_made_is_told_by_the_plan(tmp_path, monkeypatch):
    """It used to be refused after torch and the base model were loaded."""
    images = draw_images(tmp_path / "images")
    (tmp_path / "file").write_text("")
    settings = toy_settings(tmp_path / "model", images, tmp_path / "out")
    with pytest.raises(SettingsError, match=r"output_dir: .*file is a file, and no folder"):
        kit.plan(settings.replace(output_dir=str(tmp_path / "file" / "below")))
    new = settings.replace(output_dir=str(tmp_path / "not" / "yet"))
    assert kit.plan(new).run.output_dir == tmp_path / "not" / "yet"
    monkeypatch.setattr(writes.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(SettingsError, match="output_dir: nothing may be written in"):
        kit.plan(new)
