"""What torch.compile cost a run is told once, from its own steps."""

import pytest

import kit
from kit.events import Began, Finished, Loaded, Noticed, Stepped
from kit.hosts import processor
from kit.runs.measured import Measured, remember, work_of
from kit.settings import Settings
from kit.sinks import compiling
from kit.sinks.compiling import CompileCost
from kit.training import preparation
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, toy_settings

COMPILED = Settings().replace(dynamo_backend="inductor")
FIRST, LATER = 31.0, 1.0  # seconds of a step: compiling costs 30


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "cache"))


def notices(steps, total, *, from_step=0, settings=COMPILED):
    sink = CompileCost(work_of(settings))
    told = [*sink(Began("", "cat", total)), *sink(loaded(from_step))]
    for step in range(1, steps + 1):
        seconds = FIRST if step == 1 else LATER
        told += sink(Stepped(from_step + step, 1.0, 0.1, 0.1, seconds=seconds))
    return [notice.text for notice in (*told, *sink(Finished(steps, "done")))]


def loaded(from_step=0):
    return Loaded("Stable Diffusion 1.x", "CPU", "no", 192, 1_000_000, from_step)


def measured(seconds, **work):
    plain = work_of(Settings(), "sd1")
    remember(Measured(processor(), {**plain, **work}, seconds, 4000))


def test_it_is_told_once_with_what_it_takes_to_pay():
    (text,) = notices(60, 100)
    assert "dynamo_backend = inductor" in text
    assert "has cost 30 s: the first step took 31 s, a step now takes 1 s" in text
    assert "in these 100 steps if one without it takes more than 1.3 s" in text


def test_it_pays_back_where_steps_without_it_are_known():
    measured(1.5)
    (text,) = notices(60, 100)
    assert text.endswith("without it 1.5 s: it has paid after 60 steps")
    (text,) = notices(30, 50)
    assert text.endswith("it has paid after 60 steps, and this run makes 50: set no")


def test_a_run_that_goes_on_has_only_the_rest_to_pay_back_in():
    measured(1.5)
    (text,) = notices(30, 100, from_step=70)
    assert text.endswith("it has paid after 60 steps, and this run makes 30: set no")


def test_where_it_does_not_pay_that_is_said():
    measured(0.9)
    (text,) = notices(60, 100)
    assert text.endswith("and without it 0.9 s: set dynamo_backend = no")


def test_only_the_same_work_counts():
    measured(1.5, network_dim=64)
    measured(1.5, dynamo_backend="eager")
    assert "would measure" in notices(60, 100)[0]


def test_a_short_run_tells_at_its_end_and_a_shorter_one_nothing():
    assert "has cost 30 s" in notices(5, 5)[0]
    assert notices(3, 3) == []


@pytest.mark.parametrize("backend", ["eager", "no"])
def test_a_run_tells_it_where_it_was_compiled(tmp_path, monkeypatch, backend):
    compiled = []
    monkeypatch.setattr(preparation, "compile_unet", lambda unet, machine: compiled.append(unet))
    monkeypatch.setattr(compiling, "TELL_AFTER", 4)
    model, images = write_tiny(tmp_path / "model", "sd1", thin=True), draw_images(tmp_path / "i")
    asked = toy_settings(
        model, images, tmp_path / "out", dynamo_backend=backend, max_train_steps=5, epoch=9
    )
    events = list(kit.train(kit.plan(asked)))
    assert len([event for event in events if isinstance(event, Stepped)]) == 5
    told = [event.text for event in events if isinstance(event, Noticed)]
    wanted = [text for text in told if "compiling (dynamo_backend = eager) has cost" in text]
    assert len(wanted) == (backend == "eager")
    assert len(compiled) == 1
