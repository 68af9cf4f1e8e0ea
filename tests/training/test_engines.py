"""A replayed step is the called one, bit for bit; what cannot be replayed is called, and told.

Graphs are those of `tests.support.recorded_calls`, which stand in for a GPU's.
"""

import pytest
import torch

from kit import planning
from kit.errors import DeviceError
from kit.events import Lightened, Noticed, Stepped
from kit.training import engine_choice
from kit.training.graph_engine import GraphEngine
from kit.training.loop import train
from kit.training.step import TrainingStep
from tests.support.recorded_calls import RecordedCalls
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings

STEPS = 9
PLAIN = {"text_encoder_lr": 0, "cache_text_encoder_outputs": True}  # the quick ones


def long(value):
    """One of many of a kind, of which some are tried always."""
    return pytest.param(value, marks=pytest.mark.long)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("images"), count=3)


@pytest.fixture(scope="module")
def asked(images, tmp_path_factory):
    model = write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)
    return lambda out, **changes: toy_settings(
        model, images, out, **{"max_train_steps": STEPS} | changes
    )


@pytest.fixture
def recorder(monkeypatch):
    """Runs get graphs."""
    made = RecordedCalls()
    monkeypatch.setattr(engine_choice, "recorder_for", lambda device: made)
    return made


def told(events):
    return " ".join(event.text for event in events if isinstance(event, Noticed))


def norms(events):
    return [event.norm for event in events if isinstance(event, Stepped)]


def check_equal(asked, tmp_path, recorder, **changes):
    """A run call by call and one with graphs are equal; returns the events of the latter."""
    called = run(asked(tmp_path / "called", **changes, step_engine="eager"))
    assert not recorder.recorded
    replayed = run(asked(tmp_path / "replayed", **changes))
    assert losses(called) == losses(replayed)
    assert norms(called) == norms(replayed)
    assert same(lora(tmp_path / "called"), lora(tmp_path / "replayed"))
    return replayed


def replays(recorder):
    return sum(recording.replays for recording in recorder.recorded)


@pytest.mark.parametrize(
    "changes",
    [
        PLAIN,
        {"train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True, **PLAIN},
        {"mixed_precision": "bf16", **PLAIN},
        {"network_dropout": 0.2, "rank_dropout": 0.3, **PLAIN},
        {"optimizer_type": "Prodigy", "unet_lr": 1.0, **PLAIN},
        {"min_snr_gamma": 5.0, "ip_noise_gamma": 0.1, "stop_text_encoder_training": 5},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_replayed_run_is_the_called_one(asked, tmp_path, recorder, changes):
    replayed = check_equal(asked, tmp_path, recorder, **changes)
    assert replays(recorder) >= STEPS - 4
    assert "call by call" not in told(replayed)


def test_so_is_one_of_sdxl(images, tmp_path, recorder):
    model = write_tiny(tmp_path / "model", "sdxl", thin=True)
    check_equal(
        lambda out, **changes: toy_settings(model, images, out, max_train_steps=5, **changes),
        tmp_path,
        recorder,
        **PLAIN,
    )
    assert replays(recorder)


def test_of_more_shapes_than_are_held_the_least_used_goes(asked, tmp_path, recorder, monkeypatch):
    monkeypatch.setattr("kit.training.graph_engine.HELD", 1)
    check_equal(asked, tmp_path, recorder, **PLAIN, max_train_steps=16)
    assert len(recorder.recorded) > 2  # two shapes took turns


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"module_dropout": 0.3}, "module_dropout and DyLoRA draw which calls"),
        ({"LoRA_type": "Kohya DyLoRA"}, "module_dropout and DyLoRA draw which calls"),
        ({"network_dropout": 0.1, "gradient_checkpointing": True}, "dropouts are drawn twice"),
    ],
)
def test_what_draws_its_own_calls_is_not_replayed(asked, tmp_path, recorder, changes, words):
    replayed = check_equal(asked, tmp_path, recorder, **PLAIN, **changes, max_train_steps=3)
    assert words in told(replayed)
    assert not recorder.recorded


def frozen_by_the_host(monkeypatch):
    """A loss that Python gives another weight each time."""
    plain, count = TrainingStep.loss, [0]

    def loss(self, batch):
        count[0] += 1
        return plain(self, batch) * (1 + count[0] % 7)

    monkeypatch.setattr(TrainingStep, "loss", loss)


def reads_a_number(monkeypatch):
    """A loss that waits for the device."""
    plain = TrainingStep.loss
    monkeypatch.setattr(
        TrainingStep, "loss", lambda self, b: plain(self, b) * (1 + 0 * float(b.t_B.sum()))
    )


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (frozen_by_the_host, "the replayed step differs from the called one by"),
        (reads_a_number, "the step cannot be captured"),
    ],
)
def test_where_a_replay_would_not_be_the_step_it_is_called_and_told(
    asked, tmp_path, recorder, monkeypatch, fault, words
):
    fault(monkeypatch)
    events = run(asked(tmp_path / "auto", **PLAIN))
    assert told(events).count("step_engine = eager") == told(events).count(words) == 1
    assert len(losses(events)) == STEPS
    assert replays(recorder) <= 2


def test_reading_a_number_leaves_the_run_as_it_is_call_by_call(
    asked, tmp_path, recorder, monkeypatch
):
    reads_a_number(monkeypatch)
    check_equal(asked, tmp_path, recorder, **PLAIN)


def test_who_insists_on_a_graph_is_told_that_there_is_none(asked, tmp_path, recorder, monkeypatch):
    reads_a_number(monkeypatch)
    with pytest.raises(DeviceError, match="step_engine = graph cannot be had: the step cannot"):
        run(asked(tmp_path, **PLAIN, step_engine="graph"))


def test_a_device_without_graphs_says_so_only_where_one_is_asked_for(asked, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    short = {**PLAIN, "max_train_steps": 1}
    graph = run(asked(tmp_path / "graph", step_engine="graph", **short))
    assert "step_engine = graph has no effect: CPU" in told(graph)
    assert "step_engine" not in told(run(asked(tmp_path / "auto", **short)))


def test_a_run_that_was_left_goes_on_to_the_same_bits(asked, tmp_path, recorder):
    straight = run(asked(tmp_path / "a", **PLAIN))
    first = leave_after(6, asked(tmp_path / "b", **PLAIN))
    second = run(asked(tmp_path / "b", **PLAIN))
    assert losses(first) + losses(second) == losses(straight)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    assert "step_engine" not in told(second)


def test_another_engine_than_before_is_told(asked, tmp_path, recorder):
    leave_after(5, asked(tmp_path, **PLAIN))
    changed = run(asked(tmp_path, **PLAIN, step_engine="eager"))
    assert "with step_engine = graph, now with eager" in told(changed)


def no_memory_at(step, monkeypatch):
    """However often this step is tried, until something is given up."""
    calls, reset, given_up = GraphEngine.gradient, GraphEngine.reset, []

    def gradient(self, batch, count):
        if batch.micro_step == step - 1 and not given_up:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
        return calls(self, batch, count)

    monkeypatch.setattr(GraphEngine, "gradient", gradient)
    monkeypatch.setattr(GraphEngine, "reset", lambda self: given_up.append(self) or reset(self))


def test_less_memory_in_mid_run_is_captured_anew(asked, tmp_path, recorder, monkeypatch):
    whole = run(asked(tmp_path / "a", **PLAIN))
    no_memory_at(6, monkeypatch)
    told_of = run(asked(tmp_path / "b", **PLAIN))
    assert any(isinstance(event, Lightened) for event in told_of)
    assert losses(told_of) == losses(whole)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_no_graph_outlives_the_run(asked, tmp_path, recorder, monkeypatch):
    made, make = [], GraphEngine.__post_init__
    monkeypatch.setattr(GraphEngine, "__post_init__", lambda self: made.append(self) or make(self))
    events = train(planning.plan(asked(tmp_path, **PLAIN)))
    held = [bool(made and made[0]._graphs) for _ in events]
    assert any(held)
    assert not made[0]._graphs


def out_of_memory_in(monkeypatch, name):
    """The first time that the engine does this, there is no memory."""
    plain, failed = getattr(GraphEngine, name), []

    def fails(self, *given):
        if not failed:
            failed.append(name)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
        return plain(self, *given)

    monkeypatch.setattr(GraphEngine, name, fails)
    return failed


def test_a_batch_that_fits_alone_is_not_made_smaller_for_graphs(
    asked, tmp_path, recorder, monkeypatch
):
    failed = out_of_memory_in(monkeypatch, "_compared")
    events = check_equal(asked, tmp_path, recorder, **PLAIN)
    assert failed
    assert not [event for event in events if isinstance(event, Lightened)]
    assert "not enough memory for graphs" in told(events)


def test_dropouts_that_are_drawn_twice_from_now_on_are_told(asked, tmp_path, recorder, monkeypatch):
    no_memory_at(5, monkeypatch)
    events = run(asked(tmp_path, **PLAIN, network_dropout=0.1, step_engine="graph"))
    assert [e.given_up for e in events if isinstance(e, Lightened)] == ["gradient checkpointing"]
    assert "dropouts are drawn twice" in told(events)
    assert len(losses(events)) == STEPS


def test_pictures_that_lack_memory_make_graphs_go(asked, tmp_path, recorder, monkeypatch):
    def drawn(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
        yield

    monkeypatch.setattr("kit.training.requests._drawn", drawn)
    sampled = {"sample_every_n_steps": 6, "sample_prompts": "a ball --w 64 --h 64"}
    events = check_equal(asked, tmp_path, recorder, **PLAIN, **sampled)
    assert "sample pictures need the memory that graphs hold" in told(events)


@pytest.mark.parametrize(
    "lora_type",
    [long("LyCORIS/Diag-OFT"), "LyCORIS/LoKr", long("LyCORIS/LoHa")],
)
def test_other_types_are_recorded_too(asked, tmp_path, recorder, lora_type):
    changes = {**PLAIN, "LoRA_type": lora_type, "max_train_steps": 6}
    assert "step_engine" not in told(check_equal(asked, tmp_path, recorder, **changes))
    assert replays(recorder)
