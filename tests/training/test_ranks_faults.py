"""Several processes where one of them alone meets with a fault: the others hear of it, or wait."""

import shutil
import time

import pytest
import torch

from kit.caching.latents import LatentEncoder
from kit.errors import DatasetError
from kit.events import Cached, Failed, Finished, Lightened, Noticed, Stepped
from kit.processes import heartbeats, places
from kit.runs.control_files import Asked, leave
from kit.training import sampling
from kit.training.checkpoint import Checkpoint
from kit.training.step import TrainingStep
from tests.support.ranks import GATHERED, in_processes, once, told, train_in
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, lora, losses, run, same, toy_settings

PROMPTS = "a ball --w 64 --h 64 --s 1\na zib --w 64 --h 64 --s 1"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture(scope="module")
def asked(model, images):
    return lambda out, **changes: toy_settings(model, images, out, **{"epoch": 1} | changes)


def on_the_second(fault):
    return lambda rank: fault() if rank == 1 else None


def no_memory_while(name, at):
    def fault():
        setattr(
            TrainingStep,
            name,
            once(getattr(TrainingStep, name), at, torch.OutOfMemoryError("no memory left")),
        )

    return on_the_second(fault)


@pytest.mark.parametrize("name", [pytest.param("clip", marks=pytest.mark.long), "update"])
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


def test_the_first_process_tells_its_own_error_once_however_long_it_keeps_the_state(
    tmp_path, asked
):
    def fault(rank):
        if rank:
            return
        keep, TrainingStep.loss = Checkpoint.save_state, broken(TrainingStep.loss)

        def save_state(self, *arguments, **named):
            keep(self, *arguments, **named)
            time.sleep(3)  # a large state, a slow drive

        Checkpoint.save_state_if_cheap = lambda self, step: None
        Checkpoint.save_state = save_state

    def broken(whole):
        return once(whole, 3, ValueError("the cable is out"))

    ended = train_in(2, asked(tmp_path), tmp_path / "logs", prepare=fault)
    assert [each.status for each in ended] == [1, 0], ended
    failed = [event for event in told(tmp_path) if isinstance(event, Failed)]
    assert [event.text for event in failed] == ["the cable is out"]


def test_a_folder_that_is_deleted_gets_its_signs_of_life_again(tmp_path, asked):
    seen = []

    def hear(event):
        if isinstance(event, Stepped) and event.step == 1:
            shutil.rmtree(tmp_path / "toy.run")
        if isinstance(event, Stepped) and event.step == 3:
            time.sleep(2 * heartbeats.PERIOD)
            seen.extend(sign.rank for sign in places.read(tmp_path / "toy.run"))
            (tmp_path / "seen").write_text(str(seen))

    in_processes(2, asked(tmp_path), tmp_path, hear=hear)
    assert (tmp_path / "seen").read_text() == "[0, 1]"


@pytest.mark.parametrize("why", ["stop", pytest.param("error", marks=pytest.mark.long)])
def test_who_encodes_pictures_leaves_when_the_first_process_ends(tmp_path, model, why):
    images, seen = draw_images(tmp_path / "images", count=12), tmp_path / "seen"

    def slowly(rank):
        whole = LatentEncoder.encode

        def encode(self, cuts):
            if rank:
                with seen.open("a") as file:
                    file.write("1\n")
                time.sleep(1.5)
            elif why == "error":
                raise DatasetError("no picture")
            return whole(self, cuts)

        LatentEncoder.encode = encode

    def hear(event):
        if why == "stop" and isinstance(event, Cached):
            leave(tmp_path / "toy.run", Asked("stop"))

    asked = toy_settings(model, images, tmp_path, epoch=1)
    ended = train_in(2, asked, tmp_path / "logs", prepare=slowly, hear=hear)
    assert [each.status for each in ended] == [2 if why == "error" else 0, 0], ended
    assert not (tmp_path / "toy.run").exists()
    assert len(seen.read_text().split()) < 6  # all that it was to encode
