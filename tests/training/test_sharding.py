"""One run in two processes, each of which keeps half of the frozen U-Net, over gloo."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from kit import planning
from kit.events import Cached, Noticed, RolledBack, Sampled, Skipped, Validated
from kit.planning.ladder import Footing
from kit.runs.control_files import Asked, leave
from kit.training import probe, sharding
from kit.training.class_word import WHAT
from kit.training.lightening import Lightening
from kit.training.step import TrainingStep
from kit.training.stills import Stills
from tests.support.ranks import GATHERED, asks, breaking, in_processes, train_in
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings

SHARDED = {"shard_base": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture(scope="module")
def asked(model, images):
    return lambda out, **changes: toy_settings(model, images, out, **{"epoch": 1} | changes)


def at_once(rank):
    """All of the U-Net is gathered at once, so that sums on the way back keep their order."""
    sharding.BLOCKS = ()


CASES = {
    "plain": {},
    "dropouts": {"network_dropout": 0.3, "rank_dropout": 0.3, "module_dropout": 0.7},
    "bf16 and checkpointing": {"mixed_precision": "bf16", "gradient_checkpointing": True},
    "reads weights": {"LoRA_type": "LyCORIS/LoCon", "dora_wd": True, "train_norm": True},
}


@pytest.mark.parametrize(
    "case",
    [
        "plain",
        "dropouts",
        pytest.param("bf16 and checkpointing", marks=pytest.mark.long),
        pytest.param("reads weights", marks=pytest.mark.long),
    ],
)
def test_two_processes_with_half_of_the_base_learn_what_one_does(tmp_path, asked, case):
    changes = CASES[case]
    together, alone = tmp_path / "together", tmp_path / "alone"
    events = in_processes(2, asked(together, **changes, **SHARDED), together, prepare=at_once)
    straight = run(asked(alone, **changes, **GATHERED))
    assert len(losses(straight)) == 3
    assert losses(events) == losses(straight)
    assert same(lora(together), lora(alone))


def near(one, other, events, straight):
    """Equal but for rounding: 1e-6 of losses and weights."""
    apart = [abs(a - b) for a, b in zip(losses(events), losses(straight), strict=True)]
    weights = [float((one[name] - other[name]).abs().max()) for name in one]
    return one.keys() == other.keys() and max(apart) < 1e-6 and max(weights) < 1e-6


def test_block_by_block_it_is_the_same_but_for_rounding(tmp_path, asked):
    # AdamW moves a weight whose gradient is next to nothing as far as others, by its sign.
    changes = {"gradient_checkpointing": True, "optimizer_args": "eps=1e-3"}
    together, alone = tmp_path / "together", tmp_path / "alone"

    def count(rank):
        update = TrainingStep.update

        def counted(self):
            weights = list(self.text.family.unet.parameters())
            own = sum(map(sharding.local_numbers, weights))
            whole = sum(weight.numel() for weight in weights)
            (together / f"{rank}.share").write_text(str(own / whole))
            update(self)

        TrainingStep.update = counted

    events = in_processes(2, asked(together, **changes, **SHARDED), together, prepare=count)
    straight = run(asked(alone, **changes, **GATHERED))
    assert near(lora(together), lora(alone), events, straight)
    shares = [float((together / f"{rank}.share").read_text()) for rank in (0, 1)]
    assert shares == [pytest.approx(0.5, abs=0.005)] * 2
    told = [event.text for event in events if isinstance(event, Noticed)]
    assert any(text.startswith("the U-Net is sharded over 2 processes: 0.4 of") for text in told)


def test_adapters_that_one_process_leaves_out_change_no_other_processs_way_back(tmp_path, asked):
    # Without adapters behind it a block needs no gradient, and would not be gathered again.
    changes = {"module_dropout": 0.95, "text_encoder_lr": 0.0, "optimizer_args": "eps=1e-3"}
    together, alone = tmp_path / "together", tmp_path / "alone"
    events = in_processes(2, asked(together, **changes, **SHARDED), together)
    straight = run(asked(alone, **changes, **GATHERED))
    assert near(lora(together), lora(alone), events, straight)


def test_a_process_without_work_passes_through_with_the_others_and_learns_nothing(tmp_path, model):
    images = draw_images(tmp_path / "images")
    (images / "1_zib ball").mkdir()
    for path in images.glob("2_zib ball/2.*"):
        path.rename(images / "1_zib ball" / path.name)
    asked = partial(toy_settings, model, images, epoch=2)  # windows of 2, 2 and 1 batches
    together, alone = tmp_path / "together", tmp_path / "alone"
    events = in_processes(2, asked(together, **SHARDED), together, prepare=at_once)
    straight = run(asked(alone, **GATHERED))
    assert len(losses(straight)) == 6
    assert losses(events) == losses(straight)
    assert same(lora(together), lora(alone))


PROMPTS = "a ball --w 64 --h 64 --s 2 --l 3\na zib --w 64 --h 64 --s 1\na --w 64 --h 64 --s 1"
MEASURED = {"validate_every_n_steps": 2, "validation_count": 1, "max_train_steps": 4}


def test_all_draw_and_answer_together_and_the_first_one_keeps_it(tmp_path, model):
    images = draw_images(tmp_path / "images", count=5)
    drawn = {"sample_prompts": PROMPTS, "sample_every_n_steps": 2, "sample_at_first": True}
    asked = partial(toy_settings, model, images, **MEASURED, **drawn)
    hat = Asked("sample", prompt="a hat --w 64 --h 64 --s 1")
    wish = {3: [hat, Asked("pause"), Asked("go-on")]}
    ways = {}
    for name, changes in (("together", SHARDED), ("alone", GATHERED)):
        out = tmp_path / name
        ways[name] = in_processes(
            1 + (changes is SHARDED), asked(out, **changes), out, prepare=at_once,
            hear=asks(out, wish),
        )  # fmt: skip
    pictures = [
        [Path(event.path).read_bytes() for event in way if isinstance(event, Sampled)]
        for way in ways.values()
    ]
    assert len(pictures[0]) == 3 * 3 + 1
    assert pictures[0] == pictures[1]
    answers = [
        [replace(event, seconds=0) for event in way if isinstance(event, Validated)]
        for way in ways.values()
    ]
    assert len(answers[0]) == 2
    assert answers[0] == answers[1]
    assert same(lora(tmp_path / "together"), lora(tmp_path / "alone"))


@pytest.mark.long
def test_the_bare_base_draws_for_the_class_word_in_all_processes(tmp_path, model):
    images = draw_images(tmp_path / "images", count=5)
    changes = {"validate_every_n_steps": 2, "max_train_steps": 2}
    asked = partial(toy_settings, model, images, **changes)
    together, alone = tmp_path / "together", tmp_path / "alone"
    events = in_processes(2, asked(together, **SHARDED), together, prepare=at_once)
    straight = run(asked(alone, **GATHERED))
    found, wanted = (
        [replace(event, seconds=0) for event in way if isinstance(event, Validated)]
        for way in (events, straight)
    )
    assert found == wanted
    assert found and all(event.prior_loss for event in found)


def test_a_stop_breaks_off_validation_in_all_processes(tmp_path, model):
    images = draw_images(tmp_path / "images", count=5)
    out = tmp_path / "out"
    asked = toy_settings(model, images, out, **MEASURED, **SHARDED)

    def prepare(rank):
        whole, seen = Stills._own_losses, []

        def own_losses(self, asked, step, rows, is_stopped):
            def stopped():
                seen.append(1)
                if rank == 0 and len(seen) == 2:
                    leave(out / "toy.run", Asked("stop"))
                return is_stopped()

            return whole(self, asked, step, rows, stopped)

        Stills._own_losses = own_losses

    events = in_processes(2, asked, out, prepare=prepare)
    assert events[-1].reason == "asked to stop"
    assert not any(isinstance(event, Validated) for event in events)
    assert events[-1].step == 2


def test_a_sharded_run_goes_on_in_one_process_and_back(tmp_path, asked):
    out = tmp_path / "out"
    two = asked(out, epoch=3, **SHARDED)
    stop = asks(out, {2: [Asked("stop")]})
    first = in_processes(2, two, out, prepare=at_once, hear=stop)
    assert first[-1].reason == "asked to stop"
    one = asked(out, epoch=3, **GATHERED)
    assert planning.plan(one).from_step == 2
    leave_after(5, one)
    events = in_processes(2, two, out, prepare=at_once)
    straight = run(asked(tmp_path / "alone", epoch=3, **GATHERED))
    assert losses(events)[-4:] == losses(straight)[-4:]
    assert same(lora(out), lora(tmp_path / "alone"))


def test_batches_are_made_whole_whatever_a_run_in_one_process_had_come_to():
    step = SimpleNamespace(is_sharded=True, rows=0, dropout_seed=None)
    engine = SimpleNamespace(reset=lambda: None)
    lightening = Lightening(step, None, engine, 4, False, Footing(True))
    lightening.load_state_dict(Footing(True, 2).to_state())
    assert (step.rows, lightening.footing) == (0, Footing(True))
    step.is_sharded = False
    lightening.load_state_dict(Footing(True, 2).to_state())
    assert step.rows == 2


@pytest.mark.long  # as without a sharded base: test_ranks.py
@pytest.mark.parametrize("mode", ["mild", "rollback"])
def test_what_is_not_finite_is_skipped_by_all_and_the_run_goes_back_in_all(tmp_path, asked, mode):
    broken = {5} if mode == "mild" else {5, 7, 9, 11}
    prepare = breaking(broken, lambda loss_B: loss_B * float("nan"))
    ways = {}
    for name, count in (("together", 2), ("alone", 1)):
        more = SHARDED if count == 2 else GATHERED
        settings = asked(tmp_path / name, guardian=mode, epoch=3, **more)

        def both(rank):
            at_once(rank)
            prepare(rank)

        ways[name] = in_processes(count, settings, tmp_path / name, prepare=both)
    kind = Skipped if mode == "mild" else RolledBack
    found = [[e for e in events if isinstance(e, kind)] for events in ways.values()]
    assert len(found[0]) == 1
    assert found[0] == found[1]
    assert losses(ways["together"]) == losses(ways["alone"])
    assert same(lora(tmp_path / "together"), lora(tmp_path / "alone"))


@pytest.mark.long
def test_the_largest_batch_is_tried_out_by_all(tmp_path, asked):
    def prepare(rank):
        probe.FEWEST_STEPS_ON_CPU = 0

    events = in_processes(2, asked(tmp_path, **SHARDED), tmp_path, prepare=prepare)
    told = [event.text for event in events if isinstance(event, Noticed)]
    assert any(text.startswith("tried out with 1 image of 128x64: a step takes") for text in told)


@pytest.mark.long
def test_a_stop_while_the_bare_base_draws_ends_all_of_them(tmp_path, model):
    images = draw_images(tmp_path / "images", count=5)
    out = tmp_path / "out"
    asked = toy_settings(model, images, out, validate_every_n_steps=2, **SHARDED)

    def stop(event):
        if isinstance(event, Cached) and event.what == WHAT and event.done == 1:
            leave(out / "toy.run", Asked("stop"))

    ended = train_in(2, asked, out / "logs", hear=stop)
    assert [each.status for each in ended] == [0, 0], ended
    assert not (out / "toy.run").exists()


@pytest.mark.long
def test_four_processes_with_a_quarter_of_the_base_each_learn_what_one_does(tmp_path, asked):
    changes = {"optimizer_args": "eps=1e-3", "train_batch_size": 1, "max_train_steps": 20}
    together, alone = tmp_path / "together", tmp_path / "alone"
    events = in_processes(4, asked(together, **changes, **SHARDED), together)
    straight = run(asked(alone, gradient_accumulation_steps=4, **changes))
    assert len(losses(straight)) == 20
    apart = [abs(a - b) for a, b in zip(losses(events), losses(straight), strict=True)]
    assert max(apart) < 1e-5
    one, other = lora(together), lora(alone)
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-5


def test_the_plan_says_how_the_base_lies(tmp_path, asked):
    settings = asked(tmp_path, num_processes=2, **SHARDED)
    assert "half of the U-Net lies on each of 2 processes (shard_base)" in str(
        planning.plan(settings)
    )
    four = asked(tmp_path, train_batch_size=1, num_processes=4, **SHARDED)
    assert "1/4 of the U-Net lies on each of 4 processes" in str(planning.plan(four))
