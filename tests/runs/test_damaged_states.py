"""A damaged state: the run goes on from the one before, to the same weights, and says so."""

import errno
import json
import shutil
from contextlib import closing

import pytest

from kit import planning
from kit.errors import OutputError
from kit.events import Loaded, Noticed, Stepped
from kit.runs.disk import why_unwritten
from kit.sinks import JsonLines, read_events
from kit.telling import train
from kit.training import state_file
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, lora, losses, run, same, toy_settings

STEPS = 6


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    model = write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)
    images = draw_images(tmp_path_factory.mktemp("images"))
    return lambda out: toy_settings(model, images, out, max_train_steps=STEPS, text_encoder_lr=0)


def told_by(settings, *, leave_at=0):
    """Train with an events.jsonl, perhaps as far as a step."""
    planned, told = planning.plan(settings), []
    lines = JsonLines(planned.run.dir / "events.jsonl", planned.run.from_step)
    with closing(lines), closing(train(planned, listeners=[lines])) as events:
        for event in events:
            told.append(event)
            if leave_at and isinstance(event, Stepped) and event.step == leave_at:
                break
    return told


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, run(asked(out))


@pytest.fixture(scope="module")
def left(asked, tmp_path_factory):
    """What a run leaves that was broken off after its fourth step: the states of 3 and 4."""
    out = tmp_path_factory.mktemp("left")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kit.training.checkpoint.SHARE", float("inf"))
        told_by(asked(out), leave_at=4)
    return out


@pytest.fixture
def state(left, tmp_path):
    shutil.copytree(left, tmp_path / "out")
    return tmp_path / "out" / "toy.run" / "state" / "state.pt"


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [flip, lambda path: path.write_text("a text instead")])
def test_a_damaged_state_costs_the_steps_after_the_one_before(asked, whole, state, harm):
    harm(state)
    out = state.parents[2]
    told = told_by(asked(out))
    assert [event.from_step for event in told if isinstance(event, Loaded)] == [3]
    assert any(
        f"the state {state} is damaged" in event.text and "of step 3" in event.text
        for event in told
        if isinstance(event, Noticed)
    )
    assert losses(told) == losses(whole[1])[3:]
    assert same(lora(out), lora(whole[0]))
    steps = [
        e.step for e in read_events(out / "toy.run" / "events.jsonl") if isinstance(e, Stepped)
    ]
    assert steps == [1, 2, 3, 4, 5, 6], "every step is told once"


def test_without_a_whole_state_it_is_said_what_to_delete_and_that_works(asked, whole, state):
    flip(state)
    state.with_name("state_before.pt").write_text("a text")
    out = state.parents[2]
    with pytest.raises(OutputError) as error:
        run(asked(out))
    assert f"delete {state.parent} to begin the run anew under its name" in str(error.value)
    shutil.rmtree(state.parent)
    assert planning.plan(asked(out)).run.name == "toy"
    assert losses(run(asked(out))) == losses(whole[1])
    assert same(lora(out), lora(whole[0]))


def test_with_one_damaged_state_alone_another_run_begins_beside_it_and_nothing_is_lost(
    asked, whole, state
):
    state.with_name("state_before.pt").unlink()
    flip(state)
    out = state.parents[2]
    there = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(OutputError) as error:
        run(asked(out))
    for what in ("state_before.pt: it is not there", "Put back a copy of state.pt", "--begin-anew"):
        assert what in str(error.value)
    changed = {path.name for path, text in there.items() if path.read_bytes() != text}
    assert changed <= {"run.toml"}
    anew = planning.plan(asked(out), unfinished="begin anew")
    assert (anew.run.name, anew.run.from_step) == ("toy-2", 0)
    assert any("as asked, toy-2 begins anew" in notice for notice in anew.notices)
    told = list(train(anew, listeners=[]))
    assert losses(told) == losses(whole[1])
    assert all(path.read_bytes() == text for path, text in there.items() if path.name == "state.pt")


def test_who_begins_anew_and_is_broken_off_goes_on_with_that(asked, state):
    out = state.parents[2]
    with closing(train(planning.plan(asked(out), unfinished="begin anew"), listeners=[])) as events:
        for event in events:
            if isinstance(event, Stepped) and event.step == 2:
                break
    again = planning.plan(asked(out), unfinished="begin anew")
    assert (again.run.name, again.run.from_step) == ("toy-2", 2)


@pytest.mark.parametrize("text", [None, "{", '{"seed": 5}'])
def test_a_lost_record_beside_a_whole_state_goes_on(asked, whole, state, text):
    record = state.parents[1] / "run.json"
    record.unlink()
    if text:
        record.write_text(text)
    out = state.parents[2]
    assert planning.plan(asked(out)).run.from_step == 4
    assert losses(run(asked(out))) == losses(whole[1])[4:]
    assert json.loads(record.read_text())["finished"]


def test_a_state_that_a_kill_left_without_its_record_does_not_count(asked, whole, state):
    record = state.parents[1] / "run.json"
    record.write_text(record.read_text().replace('"step": 4', '"step": 3'))
    out = state.parents[2]
    assert planning.plan(asked(out)).run.from_step == 3
    told = told_by(asked(out))
    assert losses(told) == losses(whole[1])[3:]
    assert same(lora(out), lora(whole[0]))


def test_a_full_disk_is_told_in_words_with_what_is_needed(asked, state, monkeypatch):
    class Full(state_file._Told):
        def write(self, data):
            self.error = OSError(errno.ENOSPC, "No space left on device")
            raise self.error

    monkeypatch.setattr(state_file, "_Told", Full)
    monkeypatch.setattr("kit.training.checkpoint.SHARE", float("inf"))
    with pytest.raises(OutputError) as error:
        run(asked(state.parents[2]))
    assert "state.pt: No space left on device; 0." in str(error.value)
    assert "MB are needed, " in str(error.value)
    assert "inline_container" not in str(error.value)


def test_a_read_only_disk_is_told_as_that(tmp_path):
    error = OSError(errno.EROFS, "Read-only file system")
    assert why_unwritten(error, tmp_path / "a", 5) == "Read-only file system"


def test_events_wait_for_a_disk_that_refuses(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    lines = JsonLines(path)
    lines(Noticed("first"))
    with monkeypatch.context() as patch:

        def full(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(JsonLines, "_write", full)
        (told,) = lines(Noticed("second"))
        assert "cannot be written (No space left on device" in told.text
        assert lines(told) == []
    lines(Noticed("third"))
    lines.close()
    texts = [event.text for event in read_events(path)]
    assert [texts[0], texts[1], texts[-1]] == ["first", "second", "third"]
