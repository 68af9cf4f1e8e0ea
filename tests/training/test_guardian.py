"""The guardian: what is not finite or explodes is caught before it moves a weight or is written."""

import os
from dataclasses import replace

import pytest
import torch

from kit import planning
from kit.catalog import OPTIMIZERS
from kit.errors import Diverged
from kit.events import (
    Finished,
    Loaded,
    Noticed,
    RateChanged,
    RolledBack,
    Sampled,
    Skipped,
    Stepped,
)
from kit.training import guardian as rules
from kit.training.batches import BatchBuilder
from kit.training.guardian import Guardian
from kit.training.loop import train
from kit.training.soundness import Explodes, NotFinite, all_finite
from kit.training.step import StepResult, TrainingStep
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, lora, losses, run, same, toy_settings

STEPS = 8


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    model = write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)
    images = draw_images(tmp_path_factory.mktemp("images"))
    return lambda out, **changes: toy_settings(
        model, images, out, **{"max_train_steps": STEPS, "text_encoder_lr": 0} | changes
    )


@pytest.fixture(autouse=True)
def kept_at_every_step(monkeypatch):
    """Where the last state lies does not depend on the clock."""
    monkeypatch.setattr("kit.training.checkpoint.SHARE", 1e9)


def of(kind, told):
    return [event for event in told if isinstance(event, kind)]


def until_it_diverges(settings):
    """The events, and the error that ended them."""
    told = []
    with pytest.raises(Diverged) as caught:
        for event in train(planning.plan(settings)):
            told.append(event)
    return told, str(caught.value)


def left_and_gone_on(settings, kind):
    """Walk away at the first event of a kind, and go on in another training."""
    told = []
    for event in train(planning.plan(settings)):
        told.append(event)
        if isinstance(event, kind):
            break
    return told + run(settings)


def broken_picture(monkeypatch, name):
    """The cached latent of one picture holds a NaN."""
    whole = BatchBuilder.batch

    def batch(self, micro_step):
        made = whole(self, micro_step)
        rows = [row for row, each in enumerate(self.pictures(micro_step)) if each == name]
        latents = made.latents_BChw.clone()
        latents[rows, 0, 0, 0] = torch.nan
        return replace(made, latents_BChw=latents)

    monkeypatch.setattr(BatchBuilder, "batch", batch)


def spoiled(monkeypatch, steps, spoil):
    """Before the clipping of these steps, as often as they are made, `spoil` sees the step."""
    now, begin, clip = [0], rules_begin(), TrainingStep.clip

    def begins(self, step):
        now[0] = step
        return begin(self, step)

    def clips(self):
        if now[0] in steps:
            spoil(self)
        return clip(self)

    monkeypatch.setattr("kit.training.preparation.Resources.begin", begins)
    monkeypatch.setattr(TrainingStep, "clip", clips)


def rules_begin():
    from kit.training.preparation import Resources

    return Resources.begin


def learning(step):
    return [w for g in step.optimization.optimizer.param_groups for w in g["params"]]


def with_a_gradient_of(value):
    def spoil(step):
        weight = next(w for w in learning(step) if w.grad is not None)
        weight.grad.view(-1)[0] = value

    return spoil


def with_weights_of_nan(step):
    with torch.no_grad():
        learning(step)[0].view(-1)[0] = torch.nan


def finite(folder):
    return all(torch.isfinite(tensor).all() for tensor in lora(folder).values())


PRECISIONS = {"fp32": {}, "full_bf16": {"mixed_precision": "bf16", "full_bf16": True}}


@pytest.mark.parametrize("precision", ["fp32", pytest.param("full_bf16", marks=pytest.mark.long)])
def test_a_picture_whose_latent_is_broken_is_skipped_and_named(
    tmp_path, asked, monkeypatch, precision
):
    broken_picture(monkeypatch, "1.png")
    settings = asked(tmp_path / "a", **PRECISIONS[precision])
    whole = run(settings)
    skipped = of(Skipped, whole)
    assert 2 <= len(skipped) < STEPS
    assert {event.pictures for event in skipped} == {("1.png",)}
    assert "what was cached or encoded of 1.png is not finite" in skipped[0].reason
    assert [event.count for event in skipped] == list(range(1, len(skipped) + 1))
    made = [event.step for event in of(Stepped, whole)] + [event.step for event in skipped]
    assert sorted(made) == list(range(1, STEPS + 1))
    assert finite(tmp_path / "a")
    told = left_and_gone_on(asked(tmp_path / "b", **PRECISIONS[precision]), Skipped)
    assert losses(told) == losses(whole)
    assert [event.count for event in of(Skipped, told)] == [event.count for event in skipped]
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_a_skipped_step_moves_nothing_while_the_schedule_goes_on(tmp_path, asked, monkeypatch):
    changes = {"lr_scheduler": "linear", "lr_warmup": 0}
    plain = of(Stepped, run(asked(tmp_path / "a", **changes)))
    spoiled(monkeypatch, [1, 4], with_a_gradient_of(torch.inf))
    told = of(Stepped, run(asked(tmp_path / "b", **changes)))
    assert [event.step for event in told] == [2, 3, 5, 6, 7, 8]
    rates = {event.step: event.rates for event in plain}
    assert all(event.rates == rates[event.step] for event in told)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("full_bf16", marks=pytest.mark.long)])
def test_a_gradient_that_is_infinite_is_skipped_and_its_layer_named(
    tmp_path, asked, monkeypatch, precision
):
    spoiled(monkeypatch, [3], with_a_gradient_of(torch.inf))
    told = run(asked(tmp_path, **PRECISIONS[precision]))
    [event] = of(Skipped, told)
    assert event.step == 3
    assert "the gradient is not finite (its norm is inf)" in event.reason
    assert finite(tmp_path)


def test_too_many_skipped_steps_end_the_run_in_words(tmp_path, asked, monkeypatch):
    spoiled(monkeypatch, range(3, 9), with_a_gradient_of(torch.nan))
    told, message = until_it_diverges(asked(tmp_path))
    assert [event.step for event in of(Skipped, told)] == [3, 4, 5]
    assert "Step 6 (image " in message
    assert "3 steps were skipped" in message
    assert "Lower learning_rate" in message
    assert "guardian = rollback" in message
    assert "The state of step 5 is kept" in message
    assert not (tmp_path / "toy.safetensors").exists()
    assert until_it_diverges(asked(tmp_path))[1] == message  # the state remembers the counts


def test_off_stops_at_the_first_fault(tmp_path, asked, monkeypatch):
    spoiled(monkeypatch, [3], with_a_gradient_of(torch.nan))
    told, message = until_it_diverges(asked(tmp_path, guardian="off"))
    assert of(Skipped, told) == []
    assert "Step 3" in message


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_that_are_not_finite_are_never_written(tmp_path, asked, monkeypatch, precision):
    spoiled(monkeypatch, [4], with_weights_of_nan)
    samples = {"sample_prompts": "a zib ball --w 64 --h 64 --s 1", "sample_every_n_steps": 1}
    settings = asked(tmp_path, save_every_n_steps=1, **samples, **PRECISIONS[precision])
    told, message = until_it_diverges(settings)
    assert "weights of the LoRA that are not finite: lora_unet_" in message
    assert [event.step for event in of(Sampled, told)] == [1, 2, 3]
    assert len(list(tmp_path.glob("toy*.safetensors"))) == 3
    state = torch.load(tmp_path / "toy.run" / "state" / "state.pt", weights_only=True)
    assert state["step"] == 3
    assert all_finite(state["network"].values())


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [
        ("AdamW", "full_bf16"),
        ("prodigyplus.ProdigyPlusScheduleFree", "fp32"),
    ],
)
def test_rollback_goes_on_from_the_last_state_at_half_the_rate(
    tmp_path, asked, monkeypatch, optimizer, precision
):
    changes = {"guardian": "rollback", "optimizer_type": optimizer, **PRECISIONS[precision]}
    changes["max_train_steps"] = 6

    def once():
        """The weights of step 5 turn to NaN the first time that it is made."""
        left = [5]

        def spoil(step):
            if left:
                left.pop()
                with_weights_of_nan(step)

        return spoil

    with monkeypatch.context() as patch:
        spoiled(patch, [5], once())
        whole = run(asked(tmp_path / "a", **changes))
    [back] = of(RolledBack, whole)
    assert (back.step, back.from_step) == (4, 5)
    assert "weights of the LoRA" in back.reason
    [rate] = of(RateChanged, whole)
    assert rate.factors["unet"] == 0.5
    assert [event.step for event in of(Stepped, whole)] == [1, 2, 3, 4, 5, 5, 6]
    assert finite(tmp_path / "a")
    with monkeypatch.context() as patch:
        spoiled(patch, [5], once())
        told = left_and_gone_on(asked(tmp_path / "b", **changes), RolledBack)
    assert losses(told) == losses(whole)
    assert [event.factors["unet"] for event in of(RateChanged, told)] == [0.5]
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_rollback_ends_after_three_and_says_so(tmp_path, asked, monkeypatch):
    spoiled(monkeypatch, [2], with_weights_of_nan)
    told, message = until_it_diverges(asked(tmp_path, guardian="rollback"))
    assert [event.step for event in of(RolledBack, told)] == [1, 1, 1]
    assert [event.factors["unet"] for event in of(RateChanged, told)] == [0.5, 0.25, 0.125]
    assert "it went back 3 times" in message


def test_where_the_newest_state_leads_there_again_it_goes_back_to_the_one_before(
    tmp_path, asked, monkeypatch
):
    def twice():
        """The weights of step 5 turn to NaN the first two times that it is made."""
        left = [5, 5]

        def spoil(step):
            if left:
                left.pop()
                with_weights_of_nan(step)

        return spoil

    changes = {"guardian": "rollback", "max_train_steps": 7}
    with monkeypatch.context() as patch:
        spoiled(patch, [5], twice())
        whole = run(asked(tmp_path / "a", **changes))
    assert [(e.step, e.from_step) for e in of(RolledBack, whole)] == [(4, 5), (3, 5)]
    assert [event.factors["unet"] for event in of(RateChanged, whole)] == [0.5, 0.25]
    assert [event.step for event in of(Stepped, whole)] == [1, 2, 3, 4, 5, 5, 4, 5, 6, 7]
    assert finite(tmp_path / "a")

    second = []
    with monkeypatch.context() as patch:
        spoiled(patch, [5], twice())
        for event in train(planning.plan(asked(tmp_path / "b", **changes))):
            second.append(event)
            if len(of(RolledBack, second)) == 2:
                break
        rest = run(asked(tmp_path / "b", **changes))
    assert [event.from_step for event in of(Loaded, rest)] == [3]
    assert losses(second) + losses(rest) == losses(whole)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_a_gradient_that_explodes_in_a_run_is_skipped_and_then_rolled_back(
    tmp_path, asked, monkeypatch
):
    """Finite all the time, and a million times what was usual: four steps in a row, once."""
    monkeypatch.setattr(rules, "LEAST_SEEN", 3)

    def explodes():
        left = set(range(5, 9))

        def spoil(step):
            now = next(iter(sorted(left)), 0)
            left.discard(now)
            for weight in learning(step) if now else ():
                if weight.grad is not None:
                    weight.grad *= 1e6

        return spoil

    changes = {"guardian": "rollback", "max_train_steps": 10}
    with monkeypatch.context() as patch:
        spoiled(patch, range(5, 9), explodes())
        whole = run(asked(tmp_path / "a", **changes))
    assert [event.step for event in of(Skipped, whole)] == [5, 6, 7]
    assert all("the gradient explodes" in event.reason for event in of(Skipped, whole))
    [back] = of(RolledBack, whole)
    assert (back.step, back.from_step) == (7, 8)
    assert "the gradient explodes" in back.reason
    assert [event.step for event in of(Stepped, whole)] == [1, 2, 3, 4, 8, 9, 10]
    assert finite(tmp_path / "a")
    with monkeypatch.context() as patch:
        spoiled(patch, range(5, 9), explodes())
        told = left_and_gone_on(asked(tmp_path / "b", **changes), RolledBack)
    assert losses(told) == losses(whole)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_before_the_first_state_it_goes_back_to_the_beginning(tmp_path, asked, monkeypatch):
    spoiled(monkeypatch, [1], with_weights_of_nan)
    told, _ = until_it_diverges(asked(tmp_path, guardian="rollback"))
    assert [event.step for event in of(RolledBack, told)] == [0, 0, 0]
    assert [event.factors["unet"] for event in of(RateChanged, told)] == [0.5, 0.25, 0.125]


def test_fp16_first_halves_the_loss_scale(tmp_path, asked, monkeypatch):
    class Scaler:
        scale = 1024.0

        def get_scale(self):
            return self.scale

        def state_dict(self):
            return {"scale": self.scale}

        def load_state_dict(self, state):
            self.scale = state["scale"]

    scaler, whole = Scaler(), rules_checkpoint()

    def resume(self):
        self.scaler = scaler
        return whole(self)

    monkeypatch.setattr("kit.training.checkpoint.Checkpoint.resume", resume)
    spoiled(monkeypatch, [2], with_weights_of_nan)
    told, _ = until_it_diverges(asked(tmp_path, guardian="rollback"))
    assert [event.change for event in of(RolledBack, told)] == [
        "the loss scale is 512",
        "learning rate x 0.5",
        "learning rate x 0.5",
    ]


def rules_checkpoint():
    from kit.training.checkpoint import Checkpoint

    return Checkpoint.resume


def test_weights_that_overflow_in_the_files_precision_are_not_written(tmp_path, asked, monkeypatch):
    def widen(step):
        with torch.no_grad():
            learning(step)[0].view(-1)[0] = 7e4  # fp16 ends at 65504

    spoiled(monkeypatch, [STEPS], widen)
    told, message = until_it_diverges(asked(tmp_path, save_precision="fp16"))
    assert "not finite as save_precision = fp16 writes them: lora_unet_" in message
    assert f"The state of step {STEPS} is kept" in message
    assert [event.step for event in of(Stepped, told)] == list(range(1, STEPS + 1))
    assert not list(tmp_path.glob("*.safetensors"))


def test_samples_before_the_first_step_are_told_where_they_cannot_be_drawn(
    tmp_path, asked, monkeypatch
):
    begun = rules_attach()

    def attach(*arguments, **keywords):
        network = begun(*arguments, **keywords)
        next(network.parameters()).data.view(-1)[0] = torch.nan
        return network

    monkeypatch.setattr("kit.training.network_setup.attach", attach)
    samples = {"sample_prompts": "a zib ball --w 64 --h 64 --s 1", "sample_at_first": True}
    told, message = until_it_diverges(asked(tmp_path, **samples))
    assert [e for e in of(Noticed, told) if "weights of the LoRA that are not finite" in e.text]
    assert "No state was kept yet" in message


def rules_attach():
    from kit.training.network_setup import attach

    return attach


# ------------------------------------------------------------------------------- the rules alone


def result(loss, norm=1.0, band=1):
    bands = [None] * 4
    bands[band] = loss
    return StepResult([loss], norm, tuple(bands))


def after(count, *, loss=0.1, norm=1.0, mode="mild"):
    watching = Guardian(mode)
    for number in range(count):
        watching.took(result(loss * (1 + number % 7), norm * (1 + number % 5)), overflowed=False)
    return watching


def test_a_loss_far_beyond_its_noise_level_explodes():
    watching = after(64)
    watching.watch(result(10.0))
    with pytest.raises(Explodes, match="the loss explodes"):
        watching.watch(result(15.0))
    watching.watch(result(15.0, band=2))  # another noise level, of which nothing is known
    with pytest.raises(Explodes, match="the gradient explodes"):
        watching.watch(result(0.1, norm=501.0))
    after(64, mode="off").watch(result(1e9, norm=1e9))


def test_nothing_explodes_before_enough_was_seen():
    after(rules.LEAST_SEEN - 1).watch(result(1e9, norm=1e9))


def test_skips_are_counted_in_a_row_and_in_a_window():
    watching = Guardian()
    assert [watching.may_skip(step) for step in (1, 2, 3, 4)] == [True, True, True, False]
    watching = Guardian()
    assert all(watching.may_skip(step) for step in range(0, 50, 5))
    assert not watching.may_skip(50)
    assert watching.may_skip(100)
    assert watching.skipped == 11


def test_a_scaler_that_leaves_out_every_step_is_a_fault():
    watching = Guardian()
    for _ in range(rules.OVERFLOWS):
        watching.took(result(0.1, 0.0), overflowed=True)
    with pytest.raises(NotFinite, match="overflow in fp16"):
        watching.took(result(0.1, 0.0), overflowed=True)


def test_its_state_comes_back_and_an_older_one_knows_nothing():
    watching, other = after(40), Guardian()
    watching.may_skip(7)
    other.load_state_dict(watching.state_dict())
    assert other == watching
    other.load_state_dict({})
    assert other == Guardian()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_all_finite_sees_one_value_and_does_not_overflow_itself(dtype):
    big = torch.full((1000,), 6e4, dtype=dtype)
    assert all_finite([big, torch.ones(2), torch.empty(0), torch.ones(1, dtype=torch.uint8)])
    for value in (torch.nan, torch.inf, -torch.inf):
        big[7] = value
        assert not all_finite([torch.ones(2), big])


# By hand all of them, 200 steps each (nine minutes): 26 of 26 without one skip in November 2026.
BY_HAND = bool(os.environ.get("LORA_KIT_EVERY_OPTIMIZER"))


@pytest.mark.parametrize("optimizer", OPTIMIZERS if BY_HAND else ["AdamW", "Prodigy"])
def test_no_healthy_run_is_ever_disturbed(tmp_path, asked, optimizer):
    changes = {
        "optimizer_type": optimizer,
        "max_train_steps": 200 if BY_HAND else 40,
        "network_dropout": 0.1,
    }
    rate = OPTIMIZERS[optimizer].advised_lr or 1.0
    told = run(asked(tmp_path, **changes, unet_lr=rate, learning_rate=rate))
    assert of(Skipped, told) == []
    assert isinstance(told[-1], Finished)
