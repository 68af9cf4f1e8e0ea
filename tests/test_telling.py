"""`kit.train`: who hears of a run, and that nothing is written twice."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import kit
from kit.events import Event, Finished, Noticed, Stepped
from kit.planning import plan
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, toy_settings


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    model = write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)
    images = draw_images(tmp_path_factory.mktemp("images"))
    return lambda out, **changes: toy_settings(model, images, out, epoch=1, **changes)


@pytest.fixture
def small(asked, tmp_path):
    logs = str(tmp_path / "logs")
    return plan(asked(tmp_path / "out", max_train_steps=3, logging_dir=logs))


def curve(folder):
    [file] = folder.rglob("events.out.tfevents.*")
    accumulated = EventAccumulator(str(file))
    accumulated.Reload()
    return [(point.step, point.value) for point in accumulated.Scalars("loss/current")]


def lines(run):
    text = (run.dir / "events.jsonl").read_text("utf-8")
    return [json.loads(line)["event"] for line in text.splitlines()]


def test_a_bare_loop_writes_what_the_settings_name(small, tmp_path):
    events = list(kit.train(small))
    steps = [event for event in events if isinstance(event, Stepped)]
    assert [step.step for step in steps] == [1, 2, 3]
    assert curve(tmp_path / "logs") == [
        (step.step, pytest.approx(step.loss, rel=1e-6)) for step in steps
    ]
    assert len(lines(small.run)) == len(events)
    assert (small.run.dir / "loss.png").is_file()


def test_no_listeners_are_silence(small, tmp_path):
    events = list(kit.train(small, listeners=[]))
    assert isinstance(events[-1], Finished)
    assert not (tmp_path / "logs").exists()
    assert not (small.run.dir / "events.jsonl").exists()
    assert not (small.run.dir / "loss.png").exists()


def test_given_listeners_hear_every_event_before_it_is_handed_out_and_nobody_else_does(
    small, tmp_path
):
    heard: list[Event] = []
    for count, event in enumerate(kit.train(small, listeners=[heard.append]), start=1):
        assert heard[-1] is event
        assert len(heard) == count
    assert not (tmp_path / "logs").exists()


def test_a_listener_that_breaks_is_told_and_the_run_goes_on(small):
    def breaks(event):
        raise RuntimeError("no room")

    events = list(kit.train(small, listeners=[breaks]))
    [told] = [e for e in events if isinstance(e, Noticed) and "muted" in e.text]
    assert "breaks failed and is muted; the run goes on: no room" in told.text
    assert isinstance(events[-1], Finished)


def test_leaving_the_loop_leaves_whole_files(small, tmp_path):
    for event in kit.train(small):
        if isinstance(event, Stepped):
            break
    assert "Stepped" in lines(small.run)
    assert [step for step, _ in curve(tmp_path / "logs")] == [1]
    again = plan(small.settings)
    assert again.from_step == 1
    assert [e.step for e in kit.train(again) if isinstance(e, Stepped)] == [2, 3]
    assert lines(small.run).count("Stepped") == 3


def test_listeners_that_are_brought_along_are_the_only_ones(small, tmp_path):
    tell = kit.listeners(small)
    count = 0
    for event in kit.train(small):
        tell(event)
        count += 1
    assert len(lines(small.run)) == count
    assert [step for step, _ in curve(tmp_path / "logs")] == [1, 2, 3]


def test_run_in_one_line_writes_everything_once(small, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.ui.look.display", lambda _: None)
    kit.ui.run(kit.train(small), small)
    assert lines(small.run).count("Stepped") == 3
    assert [step for step, _ in curve(tmp_path / "logs")] == [1, 2, 3]


def test_the_word_of_a_run_that_was_heard_elsewhere_counts_once(small, asked, tmp_path):
    list(map(kit.listeners(small), kit.train(small)))
    settings = asked(tmp_path / "out", output_name="again", max_train_steps=1)
    later = plan(settings)
    list(kit.train(later))
    assert lines(later.run).count("Stepped") == 1
