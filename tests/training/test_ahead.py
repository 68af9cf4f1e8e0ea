"""A gradient that is begun before the step before is told: the same run, to the last bit.

Graphs are those of `tests.support.recorded_calls`; where it says so, called steps are begun ahead,
too, which no run does.
"""

import pytest
import torch

from kit import planning
from kit.control import LrRequest, RunControl, SampleRequest, SaveRequest
from kit.events import (
    Finished,
    Lightened,
    Paused,
    RateChanged,
    RolledBack,
    Sampled,
    Saved,
    Skipped,
    Stepped,
)
from kit.runs.control_files import Asked, leave
from kit.training import ahead, engine_choice, preparation
from kit.training.ahead import Ahead
from kit.training.batches import BatchBuilder
from kit.training.engine import EagerEngine
from kit.training.graph_engine import GraphEngine
from kit.training.loop import train
from kit.training.preparation import prepare
from kit.training.step import TrainingStep
from tests.support.recorded_calls import RecordedCalls
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings

STEPS = 9
PLAIN = {"text_encoder_lr": 0, "cache_text_encoder_outputs": True}


def long(*values):
    """One of many of a kind, of which some are tried always."""
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("images"), count=3)


@pytest.fixture(scope="module")
def asked(images, tmp_path_factory):
    model = write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)
    return lambda out, **changes: toy_settings(
        model, images, out, **{"max_train_steps": STEPS} | PLAIN | changes
    )


@pytest.fixture(scope="module")
def straight(asked, tmp_path_factory):
    """The run that nothing was done to, in turn: what it told, and its file."""
    out = tmp_path_factory.mktemp("straight")
    return run(asked(out)), lora(out)


def never(step, engine):
    """Each gradient is made at its own time."""
    return False


class Watched:
    """What was begun, and what of it was used."""

    def __init__(self, monkeypatch):
        self.begun, self.used = [], []
        begin, taken = Ahead.begin, Ahead.taken

        def beginning(ahead, step):
            begin(ahead, step)
            if ahead._begun is not None:
                self.begun.append(step)

        def taking(ahead, step):
            found = taken(ahead, step)
            if found is not None:
                self.used.append(step)
            return found

        monkeypatch.setattr(Ahead, "begin", beginning)
        monkeypatch.setattr(Ahead, "taken", taking)


def begin_called_steps(monkeypatch):
    """Every step is begun ahead, as if its calls took no time."""
    monkeypatch.setattr(ahead, "can_begin", lambda step, engine: step.shared is None)
    monkeypatch.setattr(EagerEngine, "replays", lambda *_: True)


@pytest.fixture(params=["replayed", "called"])
def watched(request, monkeypatch):
    """Steps are begun ahead, wherever nothing stands before them."""
    if request.param == "replayed":
        made = RecordedCalls()
        monkeypatch.setattr(engine_choice, "recorder_for", lambda device: made)
    else:
        begin_called_steps(monkeypatch)
    return Watched(monkeypatch)


@pytest.fixture
def called(monkeypatch):
    """The same with called steps alone: all but the first are begun."""
    begin_called_steps(monkeypatch)
    return Watched(monkeypatch)


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


def bare(told):
    """Events without what depends on clock, memory and folder."""
    clocks = ("seconds", "megabytes", "path", "run_dir", "removed")
    return [
        (type(event).__name__, {k: v for k, v in vars(event).items() if k not in clocks})
        for event in told
    ]


def check_equal(tmp_path, monkeypatch, trained):
    """`trained(folder)` ahead and in turn: the same events in the same order, the same weights."""
    begun = trained(tmp_path / "ahead")
    monkeypatch.setattr(ahead, "can_begin", never)
    plain = trained(tmp_path / "in_turn")
    assert bare(begun) == bare(plain)
    assert same(lora(tmp_path / "ahead"), lora(tmp_path / "in_turn"))
    return begun


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"network_dropout": 0.2, "rank_dropout": 0.3},
        long({"mixed_precision": "bf16"}),
        {"optimizer_type": "Prodigy", "unet_lr": 1.0},
        long({"optimizer_type": "AdamWScheduleFree"}),
        long({"scale_weight_norms": 0.5}),
        {"save_every_n_steps": 4, "sample_every_n_steps": 3, "sample_prompts": "a --w 64 --h 64"},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_a_run_that_begins_ahead_is_the_one_that_does_not(
    asked, tmp_path, monkeypatch, watched, changes
):
    check_equal(tmp_path, monkeypatch, lambda out: run(asked(out, **changes)))
    assert watched.used
    assert watched.used == watched.begun  # nothing came between


def test_text_encoders_that_stop_are_not_overtaken(asked, tmp_path, monkeypatch, called):
    changes = {
        "text_encoder_lr": 1e-2,
        "cache_text_encoder_outputs": False,
        "stop_text_encoder_training": 50,
        "max_train_steps": 8,
    }
    check_equal(tmp_path, monkeypatch, lambda out: run(asked(out, **changes)))
    assert called.used == [2, 3, 4, 6, 7, 8]


def test_what_is_due_comes_before_the_next_gradient(asked, tmp_path, called):
    told = run(asked(tmp_path, save_every_n_steps=4, max_train_steps=6))
    assert len(of(Saved, told)) == 2
    assert called.begun == [2, 3, 4, 6]


REQUESTS = {
    "stop": RunControl.stop,
    "save": lambda control: control.request(SaveRequest()),
    "sample": lambda control: control.request(SampleRequest()),
    "rate": lambda control: control.request(LrRequest(factor=0.5)),
    "pause": lambda control: (control.pause(), control.request(SaveRequest())),
}


@pytest.mark.parametrize(
    ("name", "step"),
    [
        *((name, 2) for name in REQUESTS),
        ("save", STEPS),
        *(long(name, step) for name in REQUESTS for step in (1, 5, STEPS - 1)),
        *(long(name, STEPS) for name in REQUESTS if name != "save"),
    ],
)
def test_what_a_person_asks_for_after_a_step_is_done_after_that_step(
    asked, tmp_path, monkeypatch, called, name, step
):
    def trained(out):
        wishes = [(Stepped, step, REQUESTS[name])]
        wishes += [(Paused, step, RunControl.go_on)] * (name == "pause")
        changes = {"sample_prompts": "a zib ball --w 64 --h 64 --s 1"} if name == "sample" else {}
        told = steered(asked(out, network_dropout=0.2, **changes), *wishes)
        return told + (run(asked(out, network_dropout=0.2)) if name == "stop" else [])

    told = check_equal(tmp_path, monkeypatch, trained)
    wanted = {"save": Saved, "sample": Sampled, "rate": RateChanged, "pause": Paused}
    if name in wanted:
        assert of(wanted[name], told)[0].step == step
    if step < STEPS:
        assert step + 1 in called.begun
        assert step + 1 not in called.used


def test_who_has_asked_already_is_not_kept_waiting(asked, tmp_path, called, monkeypatch):
    def stop_in_the_step(control):
        moves = TrainingStep.update

        def update(self):
            moves(self)
            control.stop()

        monkeypatch.setattr(TrainingStep, "update", update)

    told = steered(asked(tmp_path), (Stepped, 3, stop_in_the_step))
    assert of(Finished, told)[0].step == 4
    assert called.begun == [2, 3, 4]


def test_a_request_from_a_terminal_is_heard_after_the_step(asked, tmp_path, monkeypatch, called):
    def trained(out):
        def left(_):
            leave(out / "toy.run", Asked("rate", factor=0.5))

        return steered(asked(out), (Stepped, 4, left))

    told = check_equal(tmp_path, monkeypatch, trained)
    assert of(RateChanged, told)[0].step == 4


@pytest.fixture
def scaled(monkeypatch):
    """Gradients are scaled as in fp16, at first by far too much; every second step by more."""
    make = preparation.make_accelerator

    def made(*given, **named):
        accelerator = make(*given, **named)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=2)

        def unscale():
            for wrapped in accelerator._optimizers:
                scaler.unscale_(wrapped.optimizer)

        accelerator.scaler, accelerator.unscale_gradients = scaler, unscale
        return accelerator

    monkeypatch.setattr(preparation, "make_accelerator", made)
    plain = TrainingStep.loss
    monkeypatch.setattr(TrainingStep, "loss", lambda self, batch: 8 * plain(self, batch))


@pytest.mark.parametrize("request_at", [long(None), 3, long(8)])
def test_so_it_is_where_a_scaler_leaves_steps_out(
    asked, tmp_path, monkeypatch, scaled, watched, request_at
):
    def trained(out):
        wishes = [(Stepped, request_at, REQUESTS["save"])] if request_at else []
        return steered(asked(out, max_train_steps=12), *wishes)

    told = check_equal(tmp_path, monkeypatch, trained)
    overflowed = [event.norm == 0 for event in of(Stepped, told)]
    assert overflowed[0]
    assert sum(overflowed) in range(2, 10)
    assert watched.used


@pytest.mark.parametrize("step", [long(1), 4, long(STEPS - 1)])
def test_a_run_that_is_left_keeps_the_step_that_was_told(asked, tmp_path, straight, watched, step):
    first = leave_after(step, asked(tmp_path))
    second = run(asked(tmp_path))
    assert losses(first) + losses(second) == losses(straight[0])
    assert same(lora(tmp_path), straight[1])


class Thrown(Exception):
    pass


@pytest.mark.parametrize("error", [Thrown, KeyboardInterrupt, torch.OutOfMemoryError])
def test_an_error_of_who_iterates_keeps_it_too(asked, tmp_path, straight, called, error):
    events = train(planning.plan(asked(tmp_path)))
    told = []
    with pytest.raises(error):
        for event in events:
            told.append(event)
            if isinstance(event, Stepped) and event.step == 4:
                events.throw(error("now"))
    assert losses(told) + losses(run(asked(tmp_path))) == losses(straight[0])
    assert same(lora(tmp_path), straight[1])


def fails_at(step, error, monkeypatch, *, times=10**9):
    """The gradient of a step is broken off, the first so many times."""
    calls, failed = EagerEngine.gradient, []

    def gradient(self, batch, count):
        made = calls(self, batch, count)
        if batch.micro_step == step - 1 and len(failed) < times:
            failed.append(step)
            raise error
        return made

    monkeypatch.setattr(EagerEngine, "gradient", gradient)
    return failed


def test_ctrl_c_while_a_gradient_is_begun_loses_no_step(
    asked, tmp_path, monkeypatch, straight, called
):
    told = []
    with monkeypatch.context() as once:
        fails_at(5, KeyboardInterrupt(), once)
        with pytest.raises(KeyboardInterrupt):
            for event in train(planning.plan(asked(tmp_path))):
                told.append(event)
    assert [event.step for event in of(Stepped, told)] == [1, 2, 3, 4]
    assert losses(told) + losses(run(asked(tmp_path))) == losses(straight[0])
    assert same(lora(tmp_path), straight[1])


def test_an_error_while_a_gradient_is_begun_comes_when_it_is_made(
    asked, tmp_path, monkeypatch, called
):
    told = []
    fails_at(5, RuntimeError("the device is gone"), monkeypatch)
    with pytest.raises(RuntimeError, match="the device is gone"):
        for event in train(planning.plan(asked(tmp_path))):
            told.append(event)
    assert [event.step for event in of(Stepped, told)] == [1, 2, 3, 4]


def test_a_gradient_that_is_broken_off_leaves_nothing_behind(asked, tmp_path, monkeypatch, called):
    straight = run(asked(tmp_path / "a", gradient_accumulation_steps=2))
    failed = fails_at(6, RuntimeError("only once"), monkeypatch, times=1)  # of two batches
    told = run(asked(tmp_path / "b", gradient_accumulation_steps=2))
    assert failed
    assert bare(told)[1:] == bare(straight)[1:]
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_without_memory_it_goes_on_with_less_when_the_step_is_made(
    asked, tmp_path, monkeypatch, called
):
    changes = {"train_batch_size": 2}
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")

    def trained(out):
        with monkeypatch.context() as once:
            fails_at(5, error, once, times=1 if ahead.can_begin is never else 2)
            return run(asked(out, **changes))

    told = check_equal(tmp_path, monkeypatch, trained)
    assert [event.step for event in of(Lightened, told)] == [4]


def explodes_at(steps, monkeypatch):
    """Losses of these steps are no numbers, the first time."""
    plain, left = TrainingStep.loss, list(steps)

    def loss(self, batch):
        made, step = plain(self, batch), batch.micro_step + 1
        if step not in left:
            return made
        left.remove(step)
        return made * float("nan")

    monkeypatch.setattr(TrainingStep, "loss", loss)


def test_a_step_that_is_skipped_is_skipped_at_its_time(asked, tmp_path, monkeypatch, called):
    def trained(out):
        with monkeypatch.context() as once:
            explodes_at((3, 6), once)
            return run(asked(out))

    told = check_equal(tmp_path, monkeypatch, trained)
    assert [event.step for event in of(Skipped, told)] == [3, 6]
    assert {3, 4, 6, 7} <= set(called.used)


def test_a_run_that_goes_back_makes_its_steps_anew(asked, tmp_path, monkeypatch, called):
    monkeypatch.setattr("kit.training.checkpoint.SHARE", 1e9)  # a state at every step

    def trained(out):
        with monkeypatch.context() as once:
            explodes_at((3, 4, 5, 6), once)
            return run(asked(out, guardian="rollback"))

    told = check_equal(tmp_path, monkeypatch, trained)
    assert [event.step for event in of(RolledBack, told)] == [5]
    assert {3, 4, 5, 6, 7} <= set(called.used)


def test_weights_that_are_no_numbers_after_a_gradient_was_begun_are_not_gone_on_with(
    asked, tmp_path, monkeypatch, called
):
    """A state is refused while the next gradient, of those weights, lies there already."""
    monkeypatch.setattr("kit.training.checkpoint.SHARE", 1e9)
    spoiled = []

    def trained(out):
        spoiled.clear()
        moves = TrainingStep.update

        def update(self):
            moves(self)
            if self.optimization.scheduler.last_epoch == 5 and not spoiled:
                spoiled.append(5)
                weight = self.optimization.optimizer.param_groups[0]["params"][0]
                with torch.no_grad():
                    weight.view(-1)[0] = torch.nan

        with monkeypatch.context() as once:
            once.setattr(TrainingStep, "update", update)
            return run(asked(out, guardian="rollback"))

    told = check_equal(tmp_path, monkeypatch, trained)
    [back] = of(RolledBack, told)
    assert back.step == 4
    assert 6 in called.begun


def test_on_a_cpu_no_step_is_begun_ahead_and_no_batch_made_twice(asked, tmp_path, monkeypatch):
    watched, batches, make = Watched(monkeypatch), [], BatchBuilder.batch
    monkeypatch.setattr(BatchBuilder, "batch", lambda *given: batches.append(given) or make(*given))
    run(asked(tmp_path, max_train_steps=3))
    assert not watched.begun
    assert len(batches) == 3


def test_recording_and_comparing_have_their_own_time(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_choice, "recorder_for", lambda device: made)
    made, before, within = RecordedCalls(), [], []
    watched, plain = Watched(monkeypatch), GraphEngine._by_turns

    def looking(ahead, step):
        before.append(step)
        begin(ahead, step)
        before.pop()

    def by_turns(self, *given):
        within.extend(before)
        return plain(self, *given)

    begin = Ahead.begin
    monkeypatch.setattr(Ahead, "begin", looking)
    monkeypatch.setattr(GraphEngine, "_by_turns", by_turns)
    run(asked(tmp_path, max_train_steps=16))  # of two shapes
    assert len(made.recorded) == 2
    assert len(watched.used) > 4
    assert not within


@pytest.fixture
def ready(asked, tmp_path, called):
    job = prepare(planning.plan(asked(tmp_path, max_train_steps=4)))
    with pytest.raises(StopIteration) as ended:
        while True:
            next(job)
    yield ended.value.value
    ended.value.value.close()


def has_gradient(resources):
    weights = resources.network.parameters()
    return any(w.grad is not None and bool(w.grad.any()) for w in weights)


def test_only_its_own_step_takes_what_was_begun(ready):
    ready.ahead.begin(2)
    assert has_gradient(ready)
    assert ready.ahead.taken(3) is None
    assert not has_gradient(ready)
    ready.ahead.begin(3)
    assert len(ready.ahead.taken(3).seen) == 1
    assert has_gradient(ready)
    assert ready.ahead.taken(3) is None


@pytest.mark.parametrize("by", ["forget", "zero_grad"])
def test_what_somebody_forgot_is_not_taken(ready, by):
    ready.ahead.begin(2)
    getattr(ready.training_step, by)()
    assert ready.ahead.taken(2) is None


def test_what_others_gather_meanwhile_is_not_dropped_with_it(ready):
    ready.ahead.begin(2)
    ready.training_step.forget()
    ready.training_step.gradient(ready.batch_builder.batch(0), 1)
    ready.ahead.drop()
    assert has_gradient(ready)


def test_the_time_of_a_step_goes_from_one_to_the_next(asked, tmp_path, called, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    told = []
    for event in train(planning.plan(asked(tmp_path, max_train_steps=4))):
        told.append(event)
        clock[0] += 1.0  # whoever is told takes a second
    assert [event.seconds for event in of(Stepped, told)] == [0.0, 1.0, 1.0, 1.0]
