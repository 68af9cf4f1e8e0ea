"""One run in two processes over gloo: the same weights as one process that accumulates."""

import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from kit import planning, train
from kit.caching.latents import LatentEncoder
from kit.errors import SettingsError
from kit.events import (
    Failed,
    Finished,
    Lightened,
    Noticed,
    RolledBack,
    Sampled,
    Saved,
    Skipped,
    Stepped,
    Validated,
)
from kit.families.text import TextConditioner
from kit.processes import Processes, heartbeats, places
from kit.runs.control_files import Asked
from kit.training.ranks import Ranks
from kit.training.sampling import SamplePipeline
from kit.training.step import TrainingStep
from tests.support.ranks import GATHERED, At, asks, breaking, in_processes, told, train_in
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings

STEPS = 9


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Pictures of five uses: two that are seen twice, and one."""
    folder = draw_images(tmp_path_factory.mktemp("five"))
    (folder / "1_zib ball").mkdir()
    for path in folder.glob("2_zib ball/2.*"):
        path.rename(folder / "1_zib ball" / path.name)
    return folder


@pytest.fixture(scope="module")
def asked(model, images):
    return lambda out, **changes: toy_settings(model, images, out, **{"epoch": 3} | changes)


BIT_EQUAL = {
    "AdamW": {},
    "Prodigy": {"optimizer_type": "Prodigy", "unet_lr": 1.0, "text_encoder_lr": 1.0},
    "Adafactor": {"optimizer_type": "Adafactor"},
    "dropouts": {"network_dropout": 0.3, "rank_dropout": 0.3, "module_dropout": 0.4},
    "bf16 and clipped": {"mixed_precision": "bf16", "max_grad_norm": 0.01},
}


@pytest.mark.parametrize(
    "case",  # Adafactor learns each weight by itself, as AdamW does
    [pytest.param(case, marks=[pytest.mark.long] * (case == "Adafactor")) for case in BIT_EQUAL],
)
def test_two_processes_learn_what_one_does_that_accumulates(tmp_path, asked, case):
    changes = BIT_EQUAL[case]
    together, alone = tmp_path / "together", tmp_path / "alone"
    events = in_processes(2, asked(together, **changes), together)
    straight = run(asked(alone, **changes, **GATHERED))
    assert len(losses(straight)) == STEPS
    assert losses(events) == losses(straight)
    assert same(lora(together), lora(alone))


def test_a_process_without_work_in_a_short_window_stays_the_same(tmp_path, model, five):
    asked = partial(toy_settings, model, five, epoch=2)  # windows of 2, 2 and 1 batches
    events = in_processes(2, asked(tmp_path / "together"), tmp_path / "together")
    straight = run(asked(tmp_path / "alone", **GATHERED))
    assert len(losses(straight)) == 6
    assert losses(events) == losses(straight)
    assert same(lora(tmp_path / "together"), lora(tmp_path / "alone"))


@pytest.mark.long
# At its own rate Prodigy makes a difference of 2e-8 twice as large in each step here.
@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer_type": "Prodigy", "optimizer_args": "d_coef=0.05", "unet_lr": 1.0}],
)
def test_four_processes_that_accumulate_stay_near_for_sixty_steps(tmp_path, asked, changes):
    rates = {"text_encoder_lr": changes.get("unet_lr", 1e-3), "unet_lr": 1e-3} | changes
    steps = {"max_train_steps": 60, "train_batch_size": 1, "epoch": 1}
    together = asked(tmp_path / "together", gradient_accumulation_steps=2, **rates, **steps)
    events = in_processes(4, together, tmp_path / "together")
    straight = run(asked(tmp_path / "alone", gradient_accumulation_steps=8, **rates, **steps))
    apart = max(abs(a - b) for a, b in zip(losses(events), losses(straight), strict=True))
    assert len(losses(straight)) == 60
    assert apart < 1e-5
    one, other = lora(tmp_path / "together"), lora(tmp_path / "alone")
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-6


def test_a_run_goes_on_in_another_number_of_processes(tmp_path, asked):
    out, stops = tmp_path / "out", {3: [Asked("stop")], 6: [Asked("stop")]}
    first = in_processes(2, asked(out), out, hear=asks(out, stops))
    assert first[-1].reason == "asked to stop"
    planned = planning.plan(asked(out, **GATHERED))
    assert planned.from_step == 3
    heard = asks(out, stops)
    for event in train(planned):
        heard(event)
    events = in_processes(2, asked(out), out)
    straight = run(asked(tmp_path / "alone", **GATHERED))
    assert losses(events) == losses(straight)
    assert same(lora(out), lora(tmp_path / "alone"))


def test_wishes_reach_every_process(tmp_path, asked):
    wishes = {
        2: [Asked("rate", factor=0.5), Asked("save")],
        4: [Asked("sample", prompt="a ball --w 64 --h 64 --s 1"), Asked("rate", rate=2e-2)],
        5: [Asked("pause"), Asked("go-on")],
    }
    ways = {}
    for name, count in (("together", 2), ("alone", 1)):
        out = tmp_path / name
        settings = asked(out, **{} if count == 2 else GATHERED)
        ways[name] = in_processes(count, settings, out, hear=asks(out, wishes))
    for kind in (Saved, Sampled):
        assert sum(isinstance(event, kind) for event in ways["together"]) == 1 + (kind is Saved)
    assert losses(ways["together"]) == losses(ways["alone"])
    assert same(lora(tmp_path / "together"), lora(tmp_path / "alone"))
    assert not (tmp_path / "together" / "toy.run" / places.FOLDER).exists()


@pytest.mark.parametrize("mode", [pytest.param("mild", marks=pytest.mark.long), "rollback"])
def test_what_is_not_finite_is_skipped_by_all(tmp_path, asked, mode):
    # Of the second process, but for the odd ones; four steps in a row are too many to skip.
    broken = {5} if mode == "mild" else {5, 7, 9, 11}
    prepare = breaking(broken, lambda loss_B: loss_B * float("nan"))
    ways = {}
    for name, count in (("together", 2), ("alone", 1)):
        settings = asked(tmp_path / name, guardian=mode, **{} if count == 2 else GATHERED)
        ways[name] = in_processes(count, settings, tmp_path / name, prepare=prepare)
    kind = Skipped if mode == "mild" else RolledBack
    found = [[e for e in events if isinstance(e, kind)] for events in ways.values()]
    assert len(found[0]) == 1
    assert found[0] == found[1]
    assert losses(ways["together"]) == losses(ways["alone"])
    assert same(lora(tmp_path / "together"), lora(tmp_path / "alone"))


def test_a_process_without_memory_makes_all_of_them_take_less(tmp_path, asked):
    def no_memory(loss_B):
        raise torch.OutOfMemoryError("no memory left")

    prepare = breaking({5}, no_memory)  # of the second process
    events = in_processes(2, asked(tmp_path / "together"), tmp_path / "together", prepare=prepare)
    assert [event.step for event in events if isinstance(event, Lightened)] == [2]
    straight = run(asked(tmp_path / "alone", **GATHERED))  # checkpointing changes no bit
    assert losses(events) == losses(straight)
    assert same(lora(tmp_path / "together"), lora(tmp_path / "alone"))


def test_the_error_of_another_process_is_told_by_the_first(tmp_path, asked):
    def broken(loss_B):
        raise ValueError("the cable is out")

    settings = asked(tmp_path)
    ended = train_in(2, settings, tmp_path / "logs", prepare=breaking({5}, broken))
    assert ended[0].status == 2
    assert ended[1].status == 1
    last = told(tmp_path)[-1]
    assert isinstance(last, Failed)
    assert last.text.startswith("Process 1 of 2 failed at step 3: the cable is out")
    goes_on(tmp_path, asked)


def goes_on(out, asked):
    """The state of the last whole step was kept, for any number of processes."""
    assert planning.plan(asked(out, **GATHERED)).from_step >= 1
    straight = run(asked(out / "alone", **GATHERED))
    run(asked(out, **GATHERED))
    assert same(lora(out), lora(out / "alone"))
    assert len(losses(straight)) == STEPS


def slowly(rank):
    """So that a signal meets a run that is not over."""
    heartbeats.SILENT = 4.0  # seconds
    whole = TrainingStep.loss

    def loss(self, batch):
        time.sleep(0.15)
        return whole(self, batch)

    TrainingStep.loss = loss


@pytest.mark.parametrize(
    ("rank", "number", "words"),
    [
        # As in a pause, below.
        pytest.param(1, signal.SIGKILL, "ended", marks=pytest.mark.long),
        (0, signal.SIGKILL, "ended"),
        (1, signal.SIGSTOP, "hangs"),
    ],
)
def test_a_lost_process_is_named_and_ends_the_others(tmp_path, asked, rank, number, words):
    lost = At(tmp_path, 3, rank, number)
    ended = train_in(2, asked(tmp_path), tmp_path / "logs", prepare=slowly, kill=lost)
    survivor = ended[1 - rank]
    assert survivor.status == 2, ended
    assert survivor.seconds < 60
    last = told(tmp_path)[-1]
    assert isinstance(last, Failed)
    assert f"Process {rank} (pid" in last.text
    assert words in last.text
    goes_on(tmp_path, asked)


def test_a_process_that_is_lost_in_a_pause_ends_it(tmp_path, asked):
    class InPause(At):
        def __call__(self, pids):
            events = self.out / "toy.run" / "events.jsonl"
            if not self.at and events.exists() and '"Paused"' in events.read_text("utf-8"):
                self.at = time.monotonic()
                os.kill(pids[1], signal.SIGKILL)

    lost = InPause(tmp_path, 0, 1, signal.SIGKILL)
    pause = asks(tmp_path, {2: [Asked("pause")]})
    ended = train_in(2, asked(tmp_path), tmp_path / "logs", hear=pause, kill=lost)
    assert ended[0].status == 2
    last = told(tmp_path)[-1]
    assert isinstance(last, Failed)
    assert "Process 1 (pid" in last.text


def test_of_each_machine_one_process_fetches_before_its_others():
    order = []
    for rank, local_rank in ((0, 0), (1, 1), (2, 0), (3, 1)):
        ranks = Ranks(Processes(4, rank, local_rank))
        met = []
        ranks.meet = lambda met=met: met.append(1)
        with ranks.in_turn():
            order.append(len(met))
        assert len(met) == 2
    assert order == [0, 2, 1, 2]


def test_a_stop_that_the_terminal_sends_to_all_ends_after_a_step(tmp_path, asked):
    class ToAll(At):
        def __call__(self, pids):
            before = self.at
            super().__call__(pids)
            if self.at and not before:
                os.kill(pids[1], self.number)

    stop = ToAll(tmp_path, 3, 0, signal.SIGINT)
    events = in_processes(2, asked(tmp_path), tmp_path, prepare=slowly, kill=stop)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "asked to stop"
    goes_on(tmp_path, asked)


def test_more_processes_than_batches_are_refused(tmp_path, asked):
    with pytest.raises(SettingsError, match="7 processes cannot share an epoch of 6 batches"):
        planning.plan(asked(tmp_path), processes=7)
    assert planning.plan(asked(tmp_path), processes=6).total_steps == 3


def test_the_plan_says_the_global_batch(tmp_path, asked):
    settings = asked(tmp_path, train_batch_size=2, gradient_accumulation_steps=3)
    told = str(planning.plan(settings, processes=2))
    assert "global batch 2 x 2 processes x 3 accumulated = 12, as one process with" in told


def test_the_rates_are_scaled_where_that_is_asked_and_stay_so(tmp_path, asked):
    scaled = {"scale_lr_by_processes": True, "lr_scheduler": "constant"}
    out = tmp_path / "out"
    settings = asked(out, **scaled)
    assert "learning rates x 1.41" in str(planning.plan(settings, processes=2))
    stop = asks(out, {3: [Asked("stop")]})
    first = in_processes(2, settings, out, hear=stop)
    second = run(asked(out, **scaled, **GATHERED))
    given = [event.rates["unet"] for event in first + second if isinstance(event, Stepped)]
    assert given == pytest.approx([1e-2 * 2**0.5] * STEPS)
    plain = run(asked(tmp_path / "plain", lr_scheduler="constant", **GATHERED))
    assert not same(lora(out), lora(tmp_path / "plain"))
    assert len(losses(plain)) == STEPS


def test_another_global_batch_is_another_run_and_the_plan_says_what_keeps_it(tmp_path, asked):
    out = tmp_path / "out"
    leave_after(3, asked(out, gradient_accumulation_steps=2))
    same_batch = planning.plan(asked(out, gradient_accumulation_steps=1), processes=2)
    assert same_batch.from_step == 3
    other = planning.plan(asked(out, gradient_accumulation_steps=2), processes=2)
    assert other.from_step == 0
    assert "2 -> 4 (gradient_accumulation_steps = 1 keeps it)" in str(other)
    three = planning.plan(asked(out), processes=3)
    assert "2 -> 3 (3 processes cannot share it, 2 can)" in str(three)


def counting(out):
    """Each process writes down how many pictures its VAE encoded, and captions its encoders."""

    def prepare(rank):
        def write(name, count):
            with (out / f"{name}-{rank}").open("a") as file:
                file.write(f"{count}\n")

        pixels, words = LatentEncoder.encode, TextConditioner.embeds

        def encode(self, cuts):
            write("pictures", len(cuts))
            return pixels(self, cuts)

        def embeds(self, captions):
            write("captions", len(captions))
            return words(self, captions)

        LatentEncoder.encode, TextConditioner.embeds = encode, embeds

    return prepare


def counted(out, name):
    files = [out / f"{name}-{rank}" for rank in (0, 1)]
    return [sum(map(int, f.read_text().split())) if f.exists() else 0 for f in files]


@pytest.mark.parametrize("to_disk", [False, True])
def test_what_is_cached_is_divided(tmp_path, model, to_disk):
    images = draw_images(tmp_path / "images", count=4)
    cached = {
        "cache_text_encoder_outputs": True,
        "text_encoder_lr": 0.0,
        "cache_latents_to_disk": to_disk,
        "cache_text_encoder_outputs_to_disk": to_disk,
    }
    asked = partial(toy_settings, model, images, epoch=1, **cached)
    out = tmp_path / "together"
    out.mkdir()
    events = in_processes(2, asked(out), out, prepare=counting(out))
    assert counted(out, "pictures") == [2, 2]
    assert counted(out, "captions") == [2, 2]
    assert (images / ".kit_cache").exists() is to_disk
    straight = run(asked(tmp_path / "alone", **GATHERED))
    assert losses(events) == losses(straight)
    assert same(lora(out), lora(tmp_path / "alone"))


def test_pictures_and_validation_are_divided(tmp_path, model):
    images = draw_images(tmp_path / "images", count=5)
    prompts = "\n".join(f"a zib ball, number {n} --w 64 --h 64 --s 1" for n in range(3))
    settings = {"sample_prompts": prompts, "sample_every_n_steps": 4}
    settings |= {"validation_count": 2, "validate_every_n_steps": 3, "optimizer_type": "AdamW"}
    asked = partial(toy_settings, model, images, max_train_steps=4, **settings)
    ways = {}
    for name, count in (("together", 2), ("alone", 1)):
        out, more = tmp_path / name, {} if count == 2 else GATHERED
        out.mkdir()
        ways[name] = in_processes(count, asked(out, **more), out, prepare=drawing(out))
    drawn = [[event for event in way if isinstance(event, Sampled)] for way in ways.values()]
    assert [event.index for event in drawn[0]] == [0, 1, 2]
    for one, other in zip(*drawn, strict=True):
        assert Path(one.path).read_bytes() == Path(other.path).read_bytes()
    found = [
        [replace(event, seconds=0) for event in way if isinstance(event, Validated)]
        for way in ways.values()
    ]
    assert len(found[0]) >= 1
    assert found[0] == found[1]
    assert same(lora(tmp_path / "together"), lora(tmp_path / "alone"))
    assert counted(tmp_path / "together", "drawn") == [2, 1]


def test_one_process_draws_for_the_class_word_and_all_are_asked_about_it(tmp_path, model):
    images = draw_images(tmp_path / "images", count=5)
    settings = {"validate_every_n_steps": 3, "optimizer_type": "AdamW", "max_train_steps": 4}
    asked = partial(toy_settings, model, images, **settings)
    out = tmp_path / "together"
    out.mkdir()

    def prepare(rank):
        whole = SamplePipeline.generate_latents

        def generate(self, *arguments, **named):
            with (out / f"drawn-{rank}").open("a") as file:
                file.write("1\n")
            return whole(self, *arguments, **named)

        SamplePipeline.generate_latents = generate

    events = in_processes(2, asked(out), out, prepare=prepare)
    straight = run(asked(tmp_path / "alone", **GATHERED))
    found = [
        [replace(event, seconds=0) for event in way if isinstance(event, Validated)]
        for way in (events, straight)
    ]
    assert found[0] == found[1]
    assert len(found[0]) >= 1 and all(event.prior_loss for event in found[0])
    assert same(lora(out), lora(tmp_path / "alone"))
    assert counted(out, "drawn") == [4, 0]


def drawing(out):
    """Each process writes down how many pictures it drew."""

    def prepare(rank):
        whole = SamplePipeline.generate

        def generate(self, *arguments, **named):
            with (out / f"drawn-{rank}").open("a") as file:
                file.write("1\n")
            return whole(self, *arguments, **named)

        SamplePipeline.generate = generate

    return prepare


def test_a_picture_that_another_process_cannot_draw_is_told(tmp_path, asked):
    def prepare(rank):
        def generate(self, *arguments, **named):
            raise ValueError("no paint")

        if rank == 1:
            SamplePipeline.generate = generate

    prompts = "a ball --w 64 --h 64 --s 1\na zib --w 64 --h 64 --s 1"
    settings = asked(tmp_path, max_train_steps=3, sample_prompts=prompts, sample_every_n_steps=2)
    events = in_processes(2, settings, tmp_path, prepare=prepare)
    told = [event.text for event in events if isinstance(event, Noticed)]
    assert "step 2: the samples could not be drawn: process 1: no paint" in told
    assert isinstance(events[-1], Finished)
