"""Runs of the first version are read, shown and gone on from: tests/golden/old_run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kit import catalog, planning
from kit.demo import BASE
from kit.devices import at_work
from kit.errors import OutputError
from kit.events import EVENT_TYPES, Stepped, from_line, to_line
from kit.lorafile.tensors import read_lora
from kit.optim.making import class_name
from kit.runs.record import read_record, write_record
from kit.settings import Settings
from kit.sinks.jsonl import read_events
from kit.tools.inspecting import inspect
from kit.training.preparation import prepare
from kit.ui import Dashboard
from tests.support.parts import outcome
from tests.support.toys import losses, run

OLD = Path(__file__).parents[1] / "golden" / "old_run"
NAMES = ("adan", "adamw")
STEPS = 5  # of 10 that the old code had made
FOLLOWING = json.loads((OLD / "losses.json").read_text("utf-8"))


@pytest.fixture
def place(tmp_path):
    """A copy, whose files a run may change."""
    shutil.copytree(OLD, tmp_path / "old")
    return tmp_path / "old"


def settings_of(place, name, **changes):
    """Those that the old run wrote down; its relative paths now mean the copy."""
    return Settings.load(place / "out" / f"{name}.run" / "run.toml").replace(
        pretrained_model_name_or_path=str(BASE),
        train_data_dir=str(place / "images"),
        output_dir=str(place / "out"),
        **changes,
    )


def recognised(place, name):
    """Settings whose plan takes the copied run for its own.

    A fingerprint holds the absolute paths and the times of the images, which a copy cannot have,
    and every setting there is: the record is given today's.
    """
    settings = settings_of(place, name)
    folder = place / "out" / f"{name}.run"
    today = planning.plan(settings).run.fingerprint
    write_record(folder, replace(read_record(folder), fingerprint=today))
    return settings


def state_of(folder):
    return torch.load(folder / "state" / "state.pt", weights_only=True)


def assert_equal(one, other, where="state"):
    """Same structure and the same numbers, bit for bit; an optimizer's groups may have gained some.

    one: as read back by today's code; other: as it was written.
    """
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() >= other.keys(), where
        assert "param_groups" in where or one.keys() == other.keys(), where
        for key in other:
            assert_equal(one[key], other[key], f"{where} {key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, each in enumerate(one):
            assert_equal(each, other[number], f"{where} {number}")
    else:
        assert one == other, where


def cached(place):
    folder = place / "images" / ".kit_cache"
    return {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("name", NAMES)
def test_the_record_and_the_settings_are_read(place, name):
    record = read_record(place / "out" / f"{name}.run")
    assert record is not None
    assert (record.seed, record.step, record.finished) == (5, STEPS, False)
    flat = Settings.load(place / "out" / f"{name}.run" / "run.toml").flat()
    asked = {
        "pretrained_model_name_or_path": "base",
        "optimizer_type": {"adan": "DAdaptAdan", "adamw": "AdamW"}[name],
        "caption_dropout_rate": {"adan": 0.0, "adamw": 0.3}[name],
        "cache_text_encoder_outputs_to_disk": name == "adan",
        "lr_warmup": 25,
        "epoch": 5,
        "seed": 5,
        "block_dims": ",".join("1" if number == 4 else "0" for number in range(25)),
    }
    assert {key: flat[key] for key in asked} == asked


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_restored_exactly(place, name):
    settings = recognised(place, name)
    old = state_of(OLD / "out" / f"{name}.run")
    plan = planning.plan(settings)
    assert (plan.run.name, plan.from_step) == (name, STEPS)
    with at_work(settings.machine):
        ready, _ = outcome(prepare(plan))
        try:
            ready.checkpoint.save_state(
                STEPS, again=True
            )  # what was restored, written by today's code
        finally:
            ready.close()
    new = state_of(place / "out" / f"{name}.run")
    assert new.pop("optimizer_type") == settings.basic.optimizer_type
    old.pop("optimizer_kind")
    # An older version knew none of these.
    for name_since in ("guardian", "footing", "engine", "optimizer_asked"):
        assert name_since in new
        del new[name_since]
    assert_equal(new, old)


@pytest.mark.parametrize("name", catalog.OPTIMIZERS)
def test_the_class_path_of_every_optimizer_is_read(name):
    """As old states hold it, and as it will be when its package moves the class."""
    row = catalog.OPTIMIZERS[name]
    made = catalog.load(row.code, row.needs)
    for module in (made.__module__, "moved.elsewhere"):
        assert class_name(f"{module}.{made.__name__}") == class_name(name)


def test_the_state_of_another_optimizer_is_refused(place):
    recognised(place, "adan")
    settings = settings_of(place, "adan", optimizer_type="DAdaptAdanIP", output_name="other")
    resume = str(place / "out" / "adan.run")
    with pytest.raises(OutputError, match=r"made with kit\.dadapt\.DAdaptAdan, not.* DAdaptAdanIP"):
        run(settings.replace(resume=resume))


@pytest.mark.parametrize("name", NAMES)
def test_the_losses_that_follow_are_those_of_the_old_code(place, name):
    before = cached(place)
    rest = run(recognised(place, name))
    assert losses(rest) == pytest.approx(FOLLOWING[name], abs=1e-5)
    assert [event.step for event in rest if isinstance(event, Stepped)] == [6, 7, 8, 9, 10]
    assert cached(place) == before, "the old caches were not used"


@pytest.mark.parametrize("name", NAMES)
def test_another_run_goes_on_from_the_old_one(place, name):
    """By `resume`, to which the fingerprint means nothing."""
    resume = str(place / "out" / f"{name}.run")
    rest = run(settings_of(place, name, output_name="other", resume=resume, seed=0))
    assert losses(rest) == pytest.approx(FOLLOWING[name], abs=1e-5)


@pytest.mark.parametrize("path", sorted(OLD.rglob("*.jsonl")), ids=lambda path: path.parent.name)
def test_every_event_means_what_it_meant(path):
    lines = path.read_text("utf-8").splitlines()
    events = read_events(path)
    assert events == [from_line(line) for line in lines]
    for line, event in zip(lines, events, strict=True):
        old = json.loads(line)
        new = json.loads(to_line(event))
        assert {key: new[key] for key in old} == old  # later versions may add fields


def test_an_event_of_every_kind_is_there():
    lines = (OLD / "every_event.jsonl").read_text("utf-8").splitlines()
    assert len({json.loads(line)["event"] for line in lines}) == 13
    assert {type(from_line(line)) for line in lines} <= set(EVENT_TYPES.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_old_run_is_shown(place, name):
    dashboard = Dashboard.replay(place / "out" / f"{name}.run")
    history = dashboard.history
    assert (history.name, history.step, history.total_steps) == (name, STEPS, 10)
    lines = (OLD / "out" / f"{name}.run" / "events.jsonl").read_text("utf-8").splitlines()
    stepped = [old for line in lines if (old := json.loads(line))["event"] == "Stepped"]
    assert history.losses == [line["loss"] for line in stepped]
    assert [saved.step for saved in history.saved] == [4]


@pytest.mark.parametrize("name", NAMES)
def test_the_lora_file_is_read(place, name):
    path = place / "out" / f"{name}-000002.safetensors"
    report = inspect(path)
    assert report["hashes"]["matches"] is True
    tensors = read_lora(path).tensors
    assert len(tensors) == 3 * {"adan": 12, "adamw": 24}[name]
    fresh = settings_of(
        place, name, output_name="fresh", network_weights=str(path), max_train_steps=1
    )
    assert len(losses(run(fresh))) == 1
