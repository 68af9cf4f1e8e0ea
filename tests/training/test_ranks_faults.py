"""Several processes where one of them alone meets with a fault: the others hear of it, or wait."""

import pytest
import torch

from kit.events import Finished, Lightened, Noticed, Stepped
from kit.training import sampling
from kit.training.step import TrainingStep
from tests.support.tiny import write_tiny
from tests.support.toys import lora, losses, run, same, toy_settings
from tests.training.test_ranks import GATHERED, in_processes

PROMPTS = "a ball --w 64 --h 64 --s 1\na zib --w 64 --h 64 --s 1"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture(scope="module")
def asked(model, images):
    return lambda out, **changes: toy_settings(model, images, out, **{"epoch": 1} | changes)


def on_the_second(fault):
    return lambda rank: fault() if rank == 1 else None


def once(call, at, error):
    """The call, which fails at that time, once."""
    seen = []

    def made(*arguments, **named):
        seen.append(1)
        if len(seen) == at:
            raise error
        return call(*arguments, **named)

    return made


def no_memory_while(name, at):
    def fault():
        setattr(
            TrainingStep,
            name,
            once(getattr(TrainingStep, name), at, torch.OutOfMemoryError("no memory left")),
        )

    return on_the_second(fault)


@pytest.mark.parametrize("name", ["clip", "update"])
def test_a_process_that_lacks_memory_behind_the_sum_gets_the_state_of_the_first(
    tmp_path, asked, name
):
    events = in_processes(
        2, asked(tmp_path / "together"), tmp_path / "together", prepare=no_memory_while(name, 2)
    )
    assert [event.step for event in events if isinstance(event, Lightened)] == [2]
    straight = run(asked(tmp_path / "alone", **GATHERED))
    assert losses(events) == losses(straight)
    assert same(lora(tmp_path / "together"), lora(tmp_path / "alone"))


def test_a_process_that_cannot_even_begin_to_draw_keeps_nobody_waiting(tmp_path, asked):
    def fault():
        sampling.on_device = once(sampling.on_device, 1, torch.OutOfMemoryError("no memory left"))

    settings = asked(tmp_path, sample_prompts=PROMPTS, sample_every_n_steps=2)
    events = in_processes(2, settings, tmp_path, prepare=on_the_second(fault))
    noticed = [event.text for event in events if isinstance(event, Noticed)]
    assert "step 2: the samples could not be drawn: process 1: no memory left" in noticed
    assert isinstance(events[-1], Finished)


def test_a_process_whose_weights_may_be_others_draws_nothing(tmp_path, asked):
    settings = asked(tmp_path, sample_prompts=PROMPTS, sample_every_n_steps=2)
    events = in_processes(2, settings, tmp_path, prepare=no_memory_while("update", 2))
    noticed = [event.text for event in events if isinstance(event, Noticed)]
    assert "step 2: the samples could not be drawn: process 1: no memory left" in noticed
    assert [event.step for event in events if isinstance(event, Stepped)] == [1, 2, 3]
