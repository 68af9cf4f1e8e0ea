"""A sharded run where one process breaks off in the middle of a pass that all of them make."""

import os
import signal

import pytest
import torch

from kit import planning
from kit.events import Failed, Finished, Noticed
from kit.families.sd import StableDiffusion
from kit.processes import heartbeats
from kit.training.step import TrainingStep
from tests.support.ranks import GATHERED, Later, in_processes, told, train_in
from tests.support.tiny import write_tiny
from tests.support.toys import run, toy_settings

SHARDED = {"shard_base": True}
DRAWN = {"sample_prompts": "a ball --w 64 --h 64 --s 2", "sample_every_n_steps": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture(scope="module")
def asked(model, images):
    return lambda out, **changes: toy_settings(model, images, out, **{"epoch": 1} | changes)


def in_mid_pass(rank, deed, *, step=3, draws=False, back=False):
    """One process does this in the middle of the U-Net, on the way forward or back."""

    def meets(_, inputs):
        if back:
            inputs[0].register_hook(lambda _: deed())
        else:
            deed()

    def prepare(own):
        heartbeats.SILENT = 4.0  # seconds
        if own != rank:
            return
        predict, calls = StableDiffusion.predict, []

        def faulty(self, *inputs):
            if torch.is_grad_enabled() is not draws:
                calls.append(1)
            if len(calls) == step and not hasattr(self, "is_broken"):
                self.is_broken = True
                self.unet.mid_block.register_forward_pre_hook(meets)
            return predict(self, *inputs)

        StableDiffusion.predict = faulty

    return prepare


def kill(number):
    return lambda: os.kill(os.getpid(), number)


def breaking(error):
    def deed():
        raise error

    return deed


def goes_on(out, asked, *, least=2, **changes):
    """The state of the last whole step was kept, also for a single process."""
    assert planning.plan(asked(out, **changes, **GATHERED)).from_step >= least
    assert isinstance(run(asked(out, **changes, **GATHERED))[-1], Finished)


@pytest.mark.parametrize(
    ("rank", "number", "words", "back"),
    [
        pytest.param(1, signal.SIGKILL, "ended", False, marks=pytest.mark.long),
        (1, signal.SIGKILL, "ended", True),
        (0, signal.SIGKILL, "ended", False),
        # As without a sharded base: test_ranks.py.
        pytest.param(1, signal.SIGSTOP, "hangs", False, marks=pytest.mark.long),
    ],
)
def test_a_process_that_is_lost_in_mid_pass_is_named_and_ends_the_others(
    tmp_path, asked, rank, number, words, back
):
    more = {"kill": Later(rank)} if number == signal.SIGSTOP else {}
    lost = in_mid_pass(rank, kill(number), back=back)
    ended = train_in(2, asked(tmp_path, **SHARDED), tmp_path / "logs", prepare=lost, **more)
    survivor = ended[1 - rank]
    assert survivor.status == 2, ended
    assert survivor.seconds < 60
    last = told(tmp_path)[-1]
    assert isinstance(last, Failed)
    assert f"Process {rank} (pid" in last.text
    assert words in last.text
    goes_on(tmp_path, asked, least=2 if rank else 1)  # a survivor keeps no state for the first one


@pytest.mark.parametrize(
    ("rank", "back"), [pytest.param(0, False, marks=pytest.mark.long), (1, True)]
)
def test_an_error_in_mid_pass_is_told_and_ends_the_others(tmp_path, asked, rank, back):
    fault = in_mid_pass(rank, breaking(ValueError("the cable is out")), back=back)
    ended = train_in(2, asked(tmp_path, **SHARDED), tmp_path / "logs", prepare=fault)
    assert ended[rank].status == 1, ended
    assert ended[1 - rank].status == (2 if rank else 0)
    failed = [event.text for event in told(tmp_path) if isinstance(event, Failed)]
    assert len(failed) == 1
    assert "the cable is out" in failed[0]
    assert failed[0].startswith("Process 1 failed at step 3: " if rank else "the cable")
    goes_on(tmp_path, asked)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_process_without_memory_ends_all_of_them_and_says_what_to_lower(tmp_path, asked, rank):
    fault = in_mid_pass(rank, breaking(torch.OutOfMemoryError("no memory left")))
    ended = train_in(2, asked(tmp_path, **SHARDED), tmp_path / "logs", prepare=fault)
    assert ended[rank].status == 2, ended
    failed = [event.text for event in told(tmp_path) if isinstance(event, Failed)]
    assert len(failed) == 1
    assert "sharded over 2 processes (shard_base)" in failed[0]
    assert "Set gradient_checkpointing, lower train_batch_size" in failed[0]
    goes_on(tmp_path, asked)


@pytest.mark.long  # in the passes: above
@pytest.mark.parametrize("name", ["clip", "update"])
def test_a_process_without_memory_behind_the_passes_ends_all_of_them(tmp_path, asked, name):
    def fault(rank):
        whole, calls = getattr(TrainingStep, name), []

        def lacking(self):
            calls.append(1)
            if rank == 1 and len(calls) == 3:
                raise torch.OutOfMemoryError("no memory left")
            return whole(self)

        setattr(TrainingStep, name, lacking)

    ended = train_in(2, asked(tmp_path, epoch=2, **SHARDED), tmp_path / "logs", prepare=fault)
    assert [each.status for each in ended] == [2, 2], ended
    last = told(tmp_path)[-1]
    assert isinstance(last, Failed)
    assert last.text.startswith("Process 1 failed at step")
    assert "Set gradient_checkpointing, lower train_batch_size" in last.text


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_who_cannot_draw_its_part_of_a_picture_ends_all_of_them(tmp_path, asked, rank):
    fault = in_mid_pass(rank, breaking(ValueError("no paint")), step=1, draws=True)
    settings = asked(tmp_path, **DRAWN, **SHARDED)
    ended = train_in(2, settings, tmp_path / "logs", prepare=fault)
    assert ended[rank].status == 2, ended
    failed = [event.text for event in told(tmp_path) if isinstance(event, Failed)]
    assert len(failed) == 1
    assert "no paint" in failed[0]
    assert "The base model is sharded (shard_base)" in failed[0]
    goes_on(tmp_path, asked, **DRAWN)


def test_a_picture_that_the_first_one_cannot_decode_is_told_and_the_run_goes_on(tmp_path, asked):
    def fault(rank):
        def decode(self, latents_BChw):
            raise ValueError("no paint")

        StableDiffusion.decode_latents = decode

    settings = asked(tmp_path, **DRAWN, **SHARDED)
    events = in_processes(2, settings, tmp_path, prepare=fault)
    noticed = [event.text for event in events if isinstance(event, Noticed)]
    assert "step 2: the samples could not be drawn: no paint" in noticed
    assert isinstance(events[-1], Finished)
