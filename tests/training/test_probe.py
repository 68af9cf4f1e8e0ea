"""The probe tries the largest batch before anything is cached, and leaves no trace in the run."""

import pytest
import torch

from kit import hosts, planning
from kit.dataset.batches import Layout
from kit.errors import DatasetError, DeviceError
from kit.events import Cached, Loaded, Noticed, Stepped
from kit.planning.forecast import UNKNOWN, forecast
from kit.runs.measured import Measured, remember, work_of
from kit.training import preparation, probe
from kit.training.probe import FEWEST_STEPS_ON_CPU, largest_batch
from kit.training.step import TrainingStep
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, lora, losses, run, same, toy_settings


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def asked(model, images, monkeypatch):
    monkeypatch.setattr(probe, "FEWEST_STEPS_ON_CPU", 0)
    return lambda out, **changes: toy_settings(model, images, out, epoch=1, **changes)


def tried(events):
    return [e.text for e in events if isinstance(e, Noticed) and e.text.startswith("tried out")]


@pytest.mark.parametrize(
    "changes",
    [
        {"network_dropout": 0.3, "module_dropout": 0.3, "gradient_checkpointing": True},
        {"cache_text_encoder_outputs": True, "text_encoder_lr": 0.0, "train_batch_size": 2},
        {"mixed_precision": "bf16", "full_bf16": True, "optimizer_type": "Adafactor"},
        {"cache_latents": False, "random_crop": True, "flip_aug": True},
    ],
    ids=["dropouts", "cached", "bf16", "live"],
)
def test_a_run_with_the_probe_equals_one_without(tmp_path, asked, monkeypatch, changes):
    state = torch.get_rng_state()
    with_probe = run(asked(tmp_path / "a", **changes))
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(probe, "FEWEST_STEPS_ON_CPU", 10**9)
    without = run(asked(tmp_path / "b", **changes))
    assert len(tried(with_probe)) == 1
    assert not tried(without)
    assert losses(with_probe) == losses(without)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_it_comes_after_loading_and_before_caching_with_the_largest_bucket(tmp_path, asked):
    events = run(asked(tmp_path, train_batch_size=2, gradient_accumulation_steps=3))
    (told,) = tried(events)
    place = next(i for i, event in enumerate(events) if event == Noticed(told))
    assert place < min(i for i, event in enumerate(events) if isinstance(event, Cached | Loaded))
    assert told.startswith("tried out with 2 images of 128x64: a step takes about ")
    assert " GB, all of it about " in told


def test_what_the_plan_said_is_set_right(tmp_path, asked, monkeypatch):
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "cache"))
    settings = asked(tmp_path / "out")
    assert forecast(planning.plan(settings)) == UNKNOWN
    remember(Measured(hosts.processor(), work_of(settings, "sd1"), 77.0, 9_900))
    (told,) = tried(run(settings))
    assert "; the plan said 77 s, 9.9 GB, so it is about " in told


def test_short_runs_on_a_cpu_are_not_worth_it(tmp_path, model, images):
    assert not tried(run(toy_settings(model, images, tmp_path, epoch=1)))
    assert FEWEST_STEPS_ON_CPU >= 200  # two tries: at most one step of a hundred


def test_the_largest_batch_is_the_one_with_the_most_pixels():
    of_many = Layout(buckets=(((64, 64), ((0, 1),)), ((128, 64), ((1, 1),))), batch_size=4, seed=1)
    of_large = Layout(buckets=(((256, 128), ((2, 1),)),), batch_size=1, seed=1, part=1)
    assert largest_batch(of_many) == (4, (128, 64))
    both = Layout(of_many.buckets, 4, 1, more=(of_large,))
    assert largest_batch(both) == (4, (128, 64))
    assert largest_batch(of_large) == (1, (256, 128))


def test_a_batch_that_does_not_fit_is_told_before_anything_is_cached(tmp_path, asked, monkeypatch):
    def loss(self, batch):
        raise RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(TrainingStep, "loss", loss)
    events = []
    with pytest.raises(DeviceError, match=r"not enough for the largest batch, 1 image of 128x64"):
        for event in preparation.prepare(planning.plan(asked(tmp_path))):
            events.append(event)
    assert not [event for event in events if isinstance(event, Cached | Stepped)]


def test_other_errors_are_passed_on(tmp_path, asked, monkeypatch):
    def loss(self, batch):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(TrainingStep, "loss", loss)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(preparation.prepare(planning.plan(asked(tmp_path))))


def test_a_run_that_breaks_while_caching_leaves_the_base_as_it_was(tmp_path, asked, monkeypatch):
    families, real = [], preparation.load_model
    monkeypatch.setattr(
        preparation, "load_model", lambda *a, **k: families.append(real(*a, **k)) or families[-1]
    )

    def run_latents(plan, family, ranks):
        raise DatasetError("an image is gone")
        yield

    monkeypatch.setattr(preparation, "run_latents", run_latents)
    with pytest.raises(DatasetError):
        list(preparation.prepare(planning.plan(asked(tmp_path))))
    (family,) = families
    assert not [m for m in family.unet.modules() if m._forward_hooks or m._forward_pre_hooks]
