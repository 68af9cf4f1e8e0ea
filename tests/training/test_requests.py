"""Requests while it trains: each is answered between two steps, told, and disturbs nothing."""

import threading
import time

import pytest

from kit import planning
from kit.control import LrRequest, RunControl, SampleRequest, SaveRequest
from kit.events import (
    Cached,
    Finished,
    Loaded,
    Noticed,
    Paused,
    RateChanged,
    Resumed,
    Sampled,
    Saved,
    Stepped,
)
from kit.runs.control_files import FOLDER, Asked, leave
from kit.runs.record import read_record
from kit.settings.prompts import parse_prompt
from kit.training.loop import train
from kit.training.sampling import SamplePipeline
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, lora, losses, run, same, toy_settings

SMALL = "--w 64 --h 64 --s 1"
STEPS = 5


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    model = write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)
    images = draw_images(tmp_path_factory.mktemp("images"))
    return lambda out, **changes: toy_settings(
        model, images, out, **{"max_train_steps": STEPS, "text_encoder_lr": 0} | changes
    )


def steered(settings, *wished, leave_at=None):
    """Train; at each (kind of event, step) of `wished` do what stands beside it."""
    control, told = RunControl(), []
    for event in train(planning.plan(settings), control):
        told.append(event)
        for kind, step, request in wished:
            if isinstance(event, kind) and getattr(event, "step", 0) == step:
                request(control)
        if leave_at and isinstance(event, leave_at):
            break
    return told


def of(kind, told):
    return [event for event in told if isinstance(event, kind)]


def test_samples_and_files_requested_for_leave_the_training_untouched(tmp_path, asked):
    changes = {"network_dropout": 0.2, "sample_prompts": f"a zib ball {SMALL}"}
    typed = parse_prompt(f"a dog {SMALL} --d 3")

    def request(control):
        control.request(SampleRequest())
        control.request(SampleRequest(typed))
        control.request(SaveRequest())

    told = steered(asked(tmp_path / "a", **changes), (Stepped, 3, request))
    straight = run(asked(tmp_path / "b", **changes))
    assert losses(told) == losses(straight)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    drawn = of(Sampled, told)
    assert [(s.step, s.index, s.prompt, s.wished) for s in drawn] == [
        (3, 0, "a zib ball", True),
        (3, 1, "a dog", True),
    ]
    assert len({sample.path for sample in drawn}) == 2
    [saved] = [file for file in of(Saved, told) if file.wished]
    assert saved.path.endswith("toy-step00000003.safetensors")
    assert lora(tmp_path / "a", "toy-step00000003").keys() == lora(tmp_path / "a").keys()


def test_a_changed_rate_is_repeated_by_a_run_that_goes_on(tmp_path, asked):
    changes = {"lr_scheduler": "cosine", "lr_warmup": 0}
    request = (Stepped, 2, lambda control: control.request(LrRequest(factor=0.25)))
    straight = steered(asked(tmp_path / "a", **changes), request)
    first = steered(asked(tmp_path / "b", **changes), request, leave_at=RateChanged)
    rest = run(asked(tmp_path / "b", **changes))
    assert losses(first) + losses(rest) == losses(straight)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    plain = run(asked(tmp_path / "c", **changes))
    assert losses(plain)[:3] == losses(straight)[:3]  # step 3's loss was there before its update
    assert losses(plain)[3:] != losses(straight)[3:]
    for before, after in zip(of(Stepped, plain)[2:], of(Stepped, straight)[2:], strict=True):
        assert after.rates["unet"] == pytest.approx(before.rates["unet"] / 4)


def test_a_group_gets_a_rate_of_its_own_and_keeps_the_schedules_shape(tmp_path, asked):
    changes = {"lr_scheduler": "linear", "lr_warmup": 0, "unet_lr": 1e-2, "text_encoder_lr": 1e-3}
    request = (Stepped, 2, lambda control: control.request(LrRequest("unet", rate=5e-3)))
    told = steered(asked(tmp_path, **changes), request)
    [changed] = of(RateChanged, told)
    assert (changed.step, changed.factors) == (2, {"unet": pytest.approx(0.5)})
    rates = dict(of(Stepped, told)[2].rates)
    assert rates.pop("unet") == pytest.approx(5e-3 * (STEPS - 2) / STEPS)
    assert list(rates.values()) == [pytest.approx(1e-3 * (STEPS - 2) / STEPS)]


@pytest.mark.parametrize(("group", "changes"), [("", {"optimizer_type": "Adafactor"}), ("vae", {})])
def test_a_rate_that_cannot_be_changed_is_told(tmp_path, asked, group, changes):
    request = (Stepped, 1, lambda control: control.request(LrRequest(group, factor=0.5)))
    told = steered(asked(tmp_path, **changes), request)
    assert of(RateChanged, told) == []
    assert any("stays as it is" in notice.text for notice in of(Noticed, told))


def test_a_pause_keeps_state_and_requests_are_fulfilled_while_it_rests(tmp_path, asked):
    control, told, rests = RunControl(), [], threading.Event()

    def work():
        for event in train(planning.plan(asked(tmp_path / "a")), control):
            told.append(event)
            if isinstance(event, Stepped) and event.step == 2:
                control.pause()
            if isinstance(event, Paused):
                rests.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert rests.wait(120)
    assert planning.plan(asked(tmp_path / "a")).run.from_step == 2
    control.request(SaveRequest())
    control.go_on()
    thread.join(120)
    assert not thread.is_alive()
    kinds = [type(event) for event in told]
    at = kinds.index(Paused)
    assert kinds[at : at + 3] in ([Paused, Saved, Resumed], [Paused, Resumed, Stepped])
    assert losses(told) == losses(run(asked(tmp_path / "b")))
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_a_stop_ends_a_pause(tmp_path, asked):
    def request(control):
        control.pause()
        threading.Timer(0.3, control.stop).start()

    told = steered(asked(tmp_path), (Stepped, 2, request))
    assert [type(event) for event in told][-4:] == [Paused, Resumed, Saved, Finished]
    assert told[-1].step == 2


@pytest.mark.parametrize("moment", [Cached, Loaded])
def test_a_stop_before_the_first_step_leaves_nothing_behind(tmp_path, asked, moment):
    told = []
    control = RunControl()
    for event in train(planning.plan(asked(tmp_path)), control):
        told.append(event)
        if isinstance(event, moment):
            control.stop()
    assert told[-1] == Finished(0, "asked to stop")
    assert of(Stepped, told) == []
    assert not (tmp_path / "toy.run").exists()
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_stop_while_the_first_samples_are_drawn_is_heard_after_the_picture(tmp_path, asked):
    prompts = "\n".join([f"a zib ball {SMALL}"] * 3)
    settings = asked(tmp_path, sample_prompts=prompts, sample_at_first=True)
    told = steered(settings, (Sampled, 0, RunControl.stop))
    assert len(of(Sampled, told)) == 1
    assert told[-1] == Finished(0, "asked to stop")


def test_a_stop_while_a_run_that_goes_on_is_made_ready_keeps_its_state(tmp_path, asked):
    steered(asked(tmp_path), (Stepped, 3, RunControl.stop))
    told = steered(asked(tmp_path), (Loaded, 0, RunControl.stop))
    assert told[-1] == Finished(3, "asked to stop")
    assert read_record(tmp_path / "toy.run").step == 3


def test_a_request_that_fails_is_told_and_the_training_goes_on(tmp_path, asked, monkeypatch):
    def too_large(self, *arguments, **options):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(SamplePipeline, "generate", too_large)
    request = (
        Stepped,
        1,
        lambda control: control.request(SampleRequest(parse_prompt("a huge cat"))),
    )
    told = steered(asked(tmp_path), request)
    assert any("out of memory" in notice.text for notice in of(Noticed, told))
    assert told[-1].reason == "done"


def test_steps_tell_their_loss_by_noise_level_and_the_memory(tmp_path, asked):
    told = of(Stepped, run(asked(tmp_path, train_batch_size=2)))
    for step in told:
        known = [band for band in step.bands if band is not None]
        assert len(step.bands) == 4
        assert min(known) - 1e-5 <= step.loss <= max(known) + 1e-5
        assert step.megabytes > 100
    assert told[-1].megabytes >= told[0].megabytes


def test_a_part_of_an_optimizer_with_one_rate_keeps_it(tmp_path, asked):
    changes = {
        "optimizer_type": "Prodigy",
        "unet_lr": 1,
        "text_encoder_lr": 1,
        "max_train_steps": 3,
    }
    request = (Stepped, 1, lambda control: control.request(LrRequest("unet", factor=0.5)))
    told = steered(asked(tmp_path, **changes), request)
    assert not of(RateChanged, told)
    assert any("learns all parts at one rate" in event.text for event in of(Noticed, told))
    assert of(Finished, told)[-1].reason == "done"


def test_a_run_is_asked_from_outside_its_process(tmp_path, asked):
    settings = asked(tmp_path)
    run_dir = tmp_path / "toy.run"

    def left(*requests):
        return lambda _: [leave(run_dir, each) for each in requests]

    def go_on():
        while not any(isinstance(event, Paused) for event in told):
            time.sleep(0.02)
        leave(run_dir, Asked("go-on"))

    told = []
    control = RunControl()
    resting = threading.Thread(target=go_on)
    resting.start()
    asks = {
        1: left(Asked("rate", factor=0.5), Asked("save")),
        2: left(Asked("pause")),
        3: left(Asked("sample")),  # there is no prompt
        4: left(Asked("stop")),
    }
    for event in train(planning.plan(settings), control):
        told.append(event)
        if isinstance(event, Stepped):
            asks[event.step](control)
    resting.join(20)
    kinds = (RateChanged, Saved, Paused, Resumed, Finished)
    assert [(type(event), event.step) for event in told if isinstance(event, kinds)] == [
        (RateChanged, 1), (Saved, 1), (Paused, 2), (Resumed, 2), (Saved, 4), (Finished, 4)
    ]  # fmt: skip
    assert any("sample_prompts is blank" in event.text for event in of(Noticed, told))
    assert not (run_dir / FOLDER).exists()


def test_a_stop_from_outside_is_heard_while_it_prepares(tmp_path, asked):
    settings = asked(tmp_path, cache_latents=True)
    told = []
    for event in train(planning.plan(settings)):
        told.append(event)
        if len(of(Cached, told)) == 1 and isinstance(event, Cached):
            leave(tmp_path / "toy.run", Asked("stop"))
    assert len(of(Cached, told)) == 1
    assert told[-1] == Finished(0, "asked to stop")
    assert not (tmp_path / "toy.run").exists()
