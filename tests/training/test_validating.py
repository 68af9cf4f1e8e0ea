"""Validation beside a training: it measures, and touches nothing."""

import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from kit import planning
from kit.control import RunControl
from kit.demo import BASE
from kit.events import Noticed, Stepped, Validated
from kit.lorafile.tensors import read_header
from kit.runs.record import read_record
from kit.sinks import listening, read_events
from kit.training import class_word
from kit.training.batches import Batch
from kit.training.loop import train
from kit.training.preparation import prepare
from kit.training.sampling import SamplePipeline
from kit.training.step import run_step
from kit.training.stills import Stills, joined, switched_off
from kit.validation.class_word import DRAWN
from kit.validation.questions import EACH
from tests.support.parts import outcome
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings

HELD = {"validation_count": 2, "validate_every_n_steps": 2}
# For whole runs: so many steps, and a few questions about each group of pictures.
BRIEF = {"max_train_steps": 4, "max_validation_steps": 8}
ALL = {"validation_count": 0}  # are trained, none is held out


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("images"), count=5)


@pytest.fixture(scope="module")
def asked(model, images):
    return lambda out, **changes: toy_settings(model, images, out, **{**HELD, **changes})


@pytest.fixture(scope="module")
def asked_briefly(asked):
    return lambda out, **changes: asked(out, **{**BRIEF, **changes})


@pytest.fixture
def drawn_quickly(monkeypatch):
    """The bare base draws in two steps, which are enough where nobody looks at what."""
    monkeypatch.setattr(class_word, "LIKE", replace(class_word.LIKE, steps=2))


@contextmanager
def prepared(settings):
    ready, _ = outcome(prepare(planning.plan(settings)))
    try:
        yield ready
    finally:
        ready.close()


def validated(events):
    """Without the time that each took."""
    return [replace(event, seconds=0) for event in events if isinstance(event, Validated)]


def asked_all(ready, *, rows=4, which="held_out"):
    return ready.stills.answers(
        getattr(ready.stills, which),
        ready.training_step,
        ready.network,
        rows=rows,
        is_stopped=lambda: False,
    )


def without(images, plan, folder):
    """A copy of the folder that never held the pictures that a plan holds out."""
    shutil.copytree(images, folder)
    for image in plan.images:
        if image.held_out:
            (folder / image.folder / image.path.name).unlink()
    return folder


WAYS = {
    "cached": {},
    "live": {"cache_latents": False, "random_crop": True, "flip_aug": True, "color_aug": True},
    "captions": {"shuffle_caption": True, "caption_dropout_rate": 0.3},
    "encoded": {"text_encoder_lr": 0, "cache_text_encoder_outputs": True, "flip_aug": True},
    "dropouts": {"network_dropout": 0.3, "rank_dropout": 0.2},
    "gathering": {"gradient_accumulation_steps": 2, "train_batch_size": 2},
    "averaging": {"optimizer_type": "AdamWScheduleFree", "lr_scheduler": "constant"},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_training_is_the_same_to_the_last_bit(asked_briefly, images, tmp_path, way):
    if way == "averaging":
        pytest.importorskip("schedulefree")
    settings = asked_briefly(tmp_path / "with", **WAYS[way])
    told = run(settings)
    assert len(validated(told)) > 1
    never_held = without(images, planning.plan(settings), tmp_path / "images")
    off = {"validation_count": 0, "validate_every_n_steps": None}
    plain = settings.replace(
        train_data_dir=str(never_held), output_dir=str(tmp_path / "without"), **off
    )
    others = run(plain)
    assert not validated(others)
    assert losses(told) == losses(others)
    assert same(lora(tmp_path / "with"), lora(tmp_path / "without"))


def test_how_often_changes_nothing_but_how_often(asked_briefly, tmp_path):
    often = run(asked_briefly(tmp_path / "often", validate_every_n_steps=1))
    once = run(asked_briefly(tmp_path / "once", validate_every_n_steps=1000))
    assert losses(often) == losses(once)
    assert len(validated(often)) == len(losses(often))
    assert validated(once) == validated(often)[-1:]


def test_a_run_that_was_broken_off_tells_each_validation_once_and_the_same(asked_briefly, tmp_path):
    straight = run(asked_briefly(tmp_path / "straight", max_train_steps=5))
    settings, told = asked_briefly(tmp_path / "broken", max_train_steps=5), []
    for last in (2, 3, 100):
        plan = planning.plan(settings)
        with listening(plan.run) as tell:
            for event in train(plan):
                tell(event)
                if isinstance(event, Stepped) and event.step == last:
                    break  # before what is due after the step
        told = read_events(plan.run.dir / "events.jsonl")
    assert validated(told) == validated(straight)
    assert losses(told) == losses(straight)
    assert same(lora(tmp_path / "straight"), lora(tmp_path / "broken"))


def test_what_was_due_before_a_kill_is_made_up(asked_briefly, tmp_path):
    settings = asked_briefly(tmp_path)
    leave_after(2, settings)
    plan = planning.plan(settings)
    assert read_record(plan.run.dir).owed == ("validation",)
    told = run(settings)
    kinds = [type(event) for event in told if isinstance(event, Stepped | Validated)]
    assert kinds[:2] == [Validated, Stepped]
    assert validated(told)[0].step == 2


def test_a_request_to_stop_is_heard_within_it(asked_briefly, tmp_path, monkeypatch):
    control, asking = RunControl(), Stills.answers

    def answers(self, *args, **options):
        control.stop()
        return asking(self, *args, **options)

    monkeypatch.setattr(Stills, "answers", answers)
    settings = asked_briefly(tmp_path)
    assert not validated(run(settings, control))
    monkeypatch.undo()
    assert [event.step for event in validated(run(settings))][:2] == [2, 4]


def test_what_cannot_be_measured_is_told_and_ends_nothing(asked_briefly, tmp_path, monkeypatch):
    def refuses(self, *args, **options):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(Stills, "answers", refuses)
    told = run(asked_briefly(tmp_path))
    assert (tmp_path / "toy.safetensors").exists()
    texts = [event.text for event in told if isinstance(event, Noticed)]
    assert any("step 2: the LoRA could not be validated: CUDA out of memory" in t for t in texts)


def test_held_out_pictures_are_never_trained(asked, tmp_path):
    with prepared(asked(tmp_path, train_batch_size=2)) as ready:
        plan = ready.plan
        held = {plan.images[i].path.name for i in plan.validation.held_out}
        seen = {
            name
            for number in range(2 * plan.batches_per_epoch)
            for name in ready.batch_builder.pictures(number)
        }
        assert len(held) == 2 and len(seen) == 3 and not held & seen
        assert plan.batches_per_epoch == 3  # three pictures twice, in two buckets


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_the_mean_is_the_same_whatever_the_batch_size(asked, tmp_path, rows):
    with prepared(asked(tmp_path)) as ready:
        one, other = asked_all(ready, rows=2), asked_all(ready, rows=rows)
        assert len(one.losses) == 2 * EACH
        assert other.losses == pytest.approx(one.losses, rel=1e-4)
        assert other.loss == pytest.approx(sum(one.losses) / len(one.losses), rel=1e-4)


def test_an_untrained_lora_answers_as_the_bare_base_model(asked, tmp_path):
    with prepared(asked(tmp_path)) as ready:
        before = asked_all(ready)
        assert before.losses == before.base
        for step in (1, 2):
            run_step(ready.training_step, ready.batch_builder.micro_batches(step), count=1)
        after = asked_all(ready)
        assert after.base == before.base
        assert max(abs(a - b) for a, b in zip(after.losses, before.losses, strict=True)) > 1e-6
        with switched_off(ready.network):
            off = ready.stills._losses(ready.stills.held_out, ready.training_step, 4, lambda: False)
        assert off == before.base
        assert {adapter.multiplier for _, adapter in ready.network.named()} == {1.0}


def test_noise_and_timesteps_are_the_same_for_every_seed(asked, tmp_path):
    bases = set()
    for seed in (5, 6):
        with prepared(asked(tmp_path / str(seed), seed=seed)) as ready:
            bases.add(asked_all(ready).base)
    with prepared(asked(tmp_path / "other", validation_seed=1)) as ready:
        assert len(bases) == 1 and asked_all(ready).base not in bases


def test_random_cuts_and_mirrors_are_left_out(asked, tmp_path):
    with prepared(asked(tmp_path / "plain")) as ready:
        plain = asked_all(ready).base
    with prepared(asked(tmp_path / "random", **WAYS["live"])) as ready:
        assert asked_all(ready).base == pytest.approx(plain, rel=1e-5)


def test_only_trained_timesteps_are_asked(asked, tmp_path):
    with prepared(asked(tmp_path, min_timestep=300, max_timestep=400)) as ready:
        assert {300 <= question.t < 400 for question in ready.stills.held_out} == {True}


def test_noise_is_shaped_as_in_training(asked, tmp_path):
    found = set()
    for number, changes in enumerate([{}, {"noise_offset": 0.2}, {"ip_noise_gamma": 0.3}]):
        with prepared(asked(tmp_path / str(number), **changes)) as ready:
            found.add(asked_all(ready).base)
    assert len(found) == 3


def test_both_losses_by_hand(asked, tmp_path):
    """The true mean of what the U-Net answers, question by question."""
    with prepared(asked(tmp_path, min_snr_gamma=5.0)) as ready, torch.no_grad():
        told, step = asked_all(ready), ready.training_step
        builder, captions = ready.stills.builder, ready.stills.captions
        by_hand = []
        for question in ready.stills.held_out:
            batch = builder.still(
                question.image,
                caption=captions[question.image],
                t=question.t,
                number=question.number,
            )
            assert batch.t_B.tolist() == [question.t]
            by_hand.append(step.loss(batch).item())
        assert told.base == pytest.approx(by_hand, rel=1e-4)
        assert told.loss == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)


def test_max_validation_steps_bounds_the_batches(asked, tmp_path, monkeypatch):
    shapes, asking = [], Stills._batches

    def batches(self, *args):
        for places, batch in asking(self, *args):
            shapes.append(len(places))
            yield places, batch

    monkeypatch.setattr(Stills, "_batches", batches)
    bound = {"max_validation_steps": 4, "train_batch_size": 3}
    [event] = validated(run(asked(tmp_path, max_train_steps=1, **bound)))
    asked_lora, asked_base = sum(shapes) // 2, sum(shapes) // 2
    assert asked_lora == asked_base == 4 * 3
    assert event.pictures == 2


@pytest.mark.usefixtures("drawn_quickly")
def test_without_held_out_pictures_the_trained_ones_are_measured(asked_briefly, tmp_path):
    told = validated(run(asked_briefly(tmp_path, **ALL, max_validation_steps=16)))
    assert [event.on for event in told] == ["trained"] * len(told) != []
    assert told[-1].loss == told[-1].trained_loss < told[-1].base_loss
    assert told[-1].auc is None and told[-1].word == ""


@pytest.mark.usefixtures("drawn_quickly")
@pytest.mark.parametrize("way", ["cached", "encoded", "dropouts", "averaging"])
def test_the_training_is_the_same_where_the_base_draws_for_the_class_word(
    asked_briefly, tmp_path, way
):
    if way == "averaging":
        pytest.importorskip("schedulefree")
    settings = asked_briefly(tmp_path / "with", **ALL, **WAYS[way])
    told = run(settings)
    measured = validated(told)
    assert measured and all(event.prior_loss is not None for event in measured)
    assert len({event.prior_base_loss for event in measured}) == 1
    assert measured[-1].prior_loss != measured[-1].prior_base_loss > 0
    others = run(settings.replace(output_dir=str(tmp_path / "no"), validate_every_n_steps=None))
    assert not validated(others)
    assert losses(told) == losses(others)
    assert same(lora(tmp_path / "with"), lora(tmp_path / "no"))


@pytest.mark.usefixtures("drawn_quickly")
def test_the_base_draws_the_same_for_every_seed_of_the_run_and_without_the_network(asked, tmp_path):
    drawn = []
    for seed, up in ((5, 0.0), (6, 1.0)):
        settings = asked(tmp_path / str(seed), **ALL, seed=seed, max_train_steps=2)
        if up:
            run(settings.replace(max_validation_steps=8))  # for a network that is not zero
            settings = settings.replace(
                output_name="more",
                network_weights=str(tmp_path / str(seed) / "toy.safetensors"),
            )
        with prepared(settings) as ready:
            drawn.append(asked_all(ready, which="prior"))
            found = [ready.stills.builder.latents.kept[q.image].mean_Chw for q in drawn[-1].asked]
    assert len(found) == DRAWN * EACH
    assert drawn[0].base == drawn[1].base
    assert drawn[0].losses == drawn[0].base and drawn[1].losses != drawn[1].base


def test_the_base_explains_its_own_pictures_about_as_well_as_others(asked, tmp_path):
    named = {"pretrained_model_name_or_path": str(BASE), "resolution": "64,64"}
    named["enable_bucket"] = False
    with prepared(asked(tmp_path, **ALL, **named)) as ready:
        assert ready.plan.validation.drawn[0].startswith("a ball, picture")
        own, others = asked_all(ready, which="prior"), asked_all(ready, which="beside")
    assert 0.2 < own.base_loss / others.base_loss < 2


@pytest.mark.usefixtures("drawn_quickly")
def test_who_goes_on_asks_about_the_same_pictures(asked_briefly, tmp_path):
    straight = run(asked_briefly(tmp_path / "straight", **ALL))
    settings = asked_briefly(tmp_path / "broken", **ALL)
    leave_after(3, settings)
    again = validated(run(settings))
    assert again == validated(straight)[1:] and again[-1].prior_loss is not None


def test_without_a_class_word_that_is_told_and_the_run_goes_on(asked, model, images, tmp_path):
    folder = tmp_path / "images" / "2_zib"
    shutil.copytree(images / "2_zib ball", folder)
    for file in folder.glob("*.txt"):
        file.write_text("zib")
    told = run(asked(tmp_path / "out", **ALL, max_train_steps=1, train_data_dir=str(folder.parent)))
    assert any("neither captions nor folders" in e.text for e in told if isinstance(e, Noticed))
    assert [event.prior_loss for event in validated(told)] == [None]
    assert (tmp_path / "out" / "toy.safetensors").exists()


def test_what_the_base_cannot_draw_is_told_and_the_run_goes_on(asked, tmp_path, monkeypatch):
    def refuses(self, *args, **options):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(SamplePipeline, "generate_latents", refuses)
    told = run(asked(tmp_path, **ALL, max_train_steps=1))
    texts = [event.text for event in told if isinstance(event, Noticed)]
    assert any("class word could not be drawn" in t and "out of memory" in t for t in texts)
    assert [event.prior_loss for event in validated(told)] == [None]
    assert (tmp_path / "toy.safetensors").exists()


def test_the_event_says_what_the_meter_reads(asked, tmp_path):
    told = validated(run(asked(tmp_path, validate_every_n_steps=6)))
    assert [event.on for event in told] == ["held-out"] * len(told)
    assert len({event.base_loss for event in told}) == 1
    last = told[-1]
    assert last.pictures == 2 and len(last.bands) == len(last.base_bands) == 4
    assert last.trained_loss < last.trained_base_loss
    assert last.gap is not None and 0 <= last.auc <= 1


def test_the_file_says_what_was_held_out(asked, tmp_path):
    held = {"validation_count": 0, "validation_split": 0.4, "validation_seed": 3}
    run(asked(tmp_path, **held, max_train_steps=1))
    told = read_header(tmp_path / "toy.safetensors").metadata
    assert told["ss_num_train_images"] == "6" and told["ss_num_validation_images"] == "2"
    assert told["ss_validation_split"] == "0.4" and told["ss_validation_seed"] == "3"
    assert told["ss_validate_every_n_steps"] == "2" and told["ss_max_validation_steps"] == "None"
    assert '"img_count": 3' in told["ss_dataset_dirs"]


def test_batches_with_and_without_masks_are_joined():
    plain = Batch(
        torch.zeros(1, 4, 2, 3), torch.zeros(1, 4, 2, 3), torch.tensor([5]), torch.ones(1),
        (torch.ones(1, 1, 77),), None, torch.ones(1, 6),
    )  # fmt: skip
    masked = replace(plain, mask_B1hw=torch.full((1, 1, 2, 3), 0.5), t_B=torch.tensor([7]))
    both = joined([plain, masked])
    assert both.t_B.tolist() == [5, 7] and both.tokens[0].shape == (2, 1, 77)
    assert both.mask_B1hw[:, 0, 0, 0].tolist() == [1.0, 0.5]
    assert joined([plain, plain]).mask_B1hw is None


def test_dropouts_are_off_and_on_again_afterwards(asked, tmp_path):
    with prepared(asked(tmp_path, network_dropout=0.5)) as ready:
        for step in (1, 2):
            run_step(ready.training_step, ready.batch_builder.micro_batches(step), count=1)
        assert asked_all(ready).losses == asked_all(ready).losses
        assert ready.network.training


def test_patience_ends_a_run_as_stop_does_and_it_can_go_on(asked_briefly, tmp_path, monkeypatch):
    losses_told = iter([0.5, 0.4, 0.6, 0.7, *[0.3 - 0.01 * i for i in range(100)]])
    plain = Stills.answers

    def answers(self, *given, **named):
        found = plain(self, *given, **named)
        is_held = bool(found.asked) and found.asked == self.held_out
        return replace(found, losses=(next(losses_told),) * len(found.losses)) if is_held else found

    monkeypatch.setattr(Stills, "answers", answers)
    patient = {"validate_every_n_steps": 1, "validation_patience": 2, "max_train_steps": 6}
    settings = asked_briefly(tmp_path / "out", **patient)
    plan = planning.plan(settings)
    told = list(train(plan))
    assert (told[-1].step, told[-1].reason) == (4, "asked to stop")
    assert any("best after step 2" in e.text for e in told if isinstance(e, Noticed))
    assert (tmp_path / "out" / "toy-step00000004.safetensors").exists()
    going_on = planning.plan(settings)
    assert going_on.from_step == 4
    assert list(train(going_on))[-1].reason == "done"  # it counts anew, and each is better
