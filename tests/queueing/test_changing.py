"""What a person does with a queue, and what its record bears."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.errors import KitError, OutputError
from kit.queueing import store
from kit.queueing.changing import New, add, move, pause, remove, resume, retry
from kit.queueing.outcome import settled
from kit.queueing.starting import ENDED
from kit.queueing.store import Entry, Queue, queue_in
from kit.runs.at_work import place_of
from kit.runs.lock import at_work_in

ROOT = Path(__file__).parents[2]


@pytest.fixture
def queue(tmp_path):
    return Queue(tmp_path / "queue")


def put(queue, *names, **more):
    runs = [New(name, "output", f"name = '{name}'") for name in names]
    return add(queue, runs, folder=queue.folder.parent, **more)


def names(queue):
    return [entry.name for entry in queue.read().entries]


def become(queue, number, state, code=None):
    with queue.changing() as content:
        [entry] = [each for each in content.entries if each.number == number]
        content.put(store.Entry(**{**vars(entry), "state": state}))
    if code is not None:
        (queue.place(number) / ENDED).write_text(json.dumps({"code": code}), "utf-8")


def test_runs_stand_in_their_order_and_survive_the_process(queue):
    assert queue.read().entries == []
    added = put(queue, "cat", "dog")
    assert [entry.number for entry in added] == [1, 2]
    assert Queue(queue.folder).read().entries == added
    assert queue.settings_file(2).read_text("utf-8") == "name = 'dog'"
    assert added[0].output_dir == str(queue.folder.parent / "output")
    put(queue, "fox")
    move(queue, 3, 1)
    assert names(queue) == ["fox", "cat", "dog"]
    move(queue, 3, 3)
    assert names(queue) == ["cat", "dog", "fox"]


def test_a_record_that_is_moved_away_leaves_the_runs_untouched(queue):
    put(queue, "cat")
    log = queue.place(1) / "log.txt"
    log.write_text("how it ended", "utf-8")
    (queue.folder / "queue.json").unlink()
    assert [entry.number for entry in put(queue, "cat")] == [2]
    assert log.read_text("utf-8") == "how it ended"


def test_a_number_is_never_given_twice(queue):
    put(queue, "cat", "dog")
    remove(queue, [2])
    assert not queue.place(2).exists()
    assert put(queue, "dog")[0].number == 3


@pytest.mark.parametrize("act", [remove, retry, pause, resume, lambda q, n: move(q, n[0], 1)])
def test_a_number_that_is_not_there_is_told_with_those_that_are(queue, act):
    put(queue, "cat", "dog")
    with pytest.raises(KitError, match=r"There is no run 7 in the queue\.\nThere are 1, 2\."):
        act(queue, [7])
    assert names(queue) == ["cat", "dog"]


@pytest.mark.parametrize("position", [0, 3, -1])
def test_a_position_that_is_not_there_is_refused(queue, position):
    put(queue, "cat", "dog")
    with pytest.raises(KitError, match="positions 1 to 2"):
        move(queue, 1, position)


def test_two_of_one_name_are_refused_until_the_first_is_done(queue):
    put(queue, "cat")
    with pytest.raises(KitError, match=r"Run 1 \(cat\) is waiting. Nothing was added"):
        put(queue, "dog", "cat")
    with pytest.raises(KitError, match="Nothing was added"):
        put(queue, "fox", "fox")
    assert names(queue) == ["cat"]
    add(queue, [New("cat", "elsewhere", "")], folder=queue.folder.parent)
    become(queue, 1, "started", code=0)
    put(queue, "cat")
    assert names(queue) == ["cat", "cat", "cat"]


def test_a_run_that_trains_outside_of_the_queue_is_not_added_to_it(queue):
    out = queue.folder.parent / "output"
    told = r"^cat trains at this moment, in this kernel \(.*cat\.run\)\. Nothing was added"
    with at_work_in(out / "cat.run"), pytest.raises(KitError, match=told):
        put(queue, "dog", "cat")
    assert names(queue) == []
    put(queue, "cat")  # it is over
    assert place_of({"pid": 4711}) == "in process 4711"
    assert place_of({"pid": os.getpid(), "host": "gpubox"}) == f"in process {os.getpid()} on gpubox"


def test_a_run_is_known_under_the_name_that_it_took(queue):
    out = queue.folder.parent / "output"
    with at_work_in(out / "cat-2.run"):
        put(queue, "cat")  # a name of its own, as long as cat is free
        remove(queue, [1])
        (out / "cat.safetensors").touch()
        with pytest.raises(KitError, match=r"^cat trains as cat-2 at this moment"):
            put(queue, "cat")
        put(queue, "cat-again")


def test_a_folder_of_the_home_is_the_same_folder(queue, monkeypatch):
    monkeypatch.setenv("HOME", str(queue.folder.parent))
    [entry] = add(queue, [New("cat", "~/output", "")], folder=Path("/elsewhere"))
    assert entry.output_dir == str(queue.folder.parent / "output")


@pytest.mark.parametrize(
    ("state", "act", "told"),
    [
        ("done", retry, "is done; kit queue add trains it once more"),
        ("waiting", retry, "is to be made already"),
        ("done", pause, "is over: it is done"),
        ("failed", pause, "is over: it failed"),
        ("waiting", resume, "is not paused: it is waiting"),
    ],
)
def test_what_a_state_does_not_allow_is_refused(queue, state, act, told):
    put(queue, "cat", "dog")
    become(queue, 2, state)
    with pytest.raises(KitError, match=told):
        act(queue, [2])
    assert queue.read().entries[1].state == state


def test_pause_and_resume_of_a_run_that_waits_and_of_the_queue(queue):
    put(queue, "cat", "dog")
    pause(queue, [1])
    assert [entry.state for entry in queue.read().entries] == ["paused", "waiting"]
    assert not queue.read().paused
    resume(queue, [1])
    pause(queue)
    assert queue.read().paused
    resume(queue)
    assert not queue.read().paused


@pytest.mark.parametrize(
    ("code", "then", "state"),
    [
        (0, "", "done"), (0, "paused", "done"), (3, "", "stopped"), (3, "paused", "paused"),
        (3, "waiting", "waiting"), (2, "", "failed"), (-15, "paused", "paused"),
        (-15, "", "failed"), (130, "waiting", "waiting"),
    ],
)  # fmt: skip
def test_the_exit_code_says_how_it_ended(queue, code, then, state):
    put(queue, "cat")
    become(queue, 1, "started", code=code)
    entry = Entry(**{**vars(queue.read().entries[0]), "then": then})
    assert settled(queue, entry).state == state


def test_as_long_as_its_place_is_held_a_run_is_at_work(queue):
    put(queue, "cat")
    become(queue, 1, "started", code=0)
    [entry] = queue.read().entries
    with at_work_in(queue.place(1)):
        assert settled(queue, entry) == entry
    assert settled(queue, entry).state == "done"
    (queue.place(1) / ENDED).unlink()
    assert settled(queue, entry) is None  # broken off


ADD = """
import sys
from pathlib import Path
from kit.queueing.changing import New, add
from kit.queueing.store import Queue
for n in range(10):
    add(Queue(Path(sys.argv[1])), [New(f"{sys.argv[2]}{n}", "output", "")], folder=Path("/"))
"""


def test_several_processes_add_at_once_and_nothing_is_lost(queue):
    adding = [
        subprocess.Popen(
            [sys.executable, "-c", ADD, str(queue.folder), name],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for name in "abc"
    ]
    assert [process.wait(60) for process in adding] == [0, 0, 0]
    entries = queue.read().entries
    assert sorted(entry.name for entry in entries) == [f"{a}{n}" for a in "abc" for n in range(10)]
    assert [entry.number for entry in entries] == list(range(1, 31))


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"entries": 5}', '{"entries": [{"number": 1}], "following": 2, "paused": false}',
     '{"entries": [], "following": "x", "paused": false}'],
)  # fmt: skip
def test_a_damaged_record_is_told_and_left_as_it_is(queue, text):
    put(queue, "cat")
    file = queue.folder / "queue.json"
    file.write_text(text, "utf-8")
    for act in (queue.read, lambda: put(queue, "dog")):
        with pytest.raises(KitError, match="The queue cannot be read") as refused:
            act()
        assert f"kit queue add {queue.folder}/runs/*/settings.toml" in str(refused.value)
    assert file.read_text("utf-8") == text


def test_an_unknown_state_is_no_state(queue):
    put(queue, "cat")
    file = queue.folder / "queue.json"
    file.write_text(file.read_text("utf-8").replace('"waiting"', '"asleep"'), "utf-8")
    with pytest.raises(KitError, match="unknown state 'asleep'"):
        queue.read()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError, match=r"The queue's folder .* cannot be written"):
        put(Queue(tmp_path / "file" / "queue"), "cat")


def test_a_change_waits_for_another_but_not_for_ever(queue, monkeypatch):
    put(queue, "cat")
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    with at_work_in(queue.folder / "changing"), pytest.raises(KitError, match="is being changed"):
        put(queue, "dog")
    put(queue, "dog")


def test_where_the_queue_lies(tmp_path, monkeypatch):
    monkeypatch.delenv("LORA_KIT_QUEUE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert queue_in().folder == tmp_path / ".lora-kit" / "queue"
    monkeypatch.setenv("LORA_KIT_QUEUE", str(tmp_path / "q"))
    assert queue_in().folder == tmp_path / "q"
    assert queue_in(tmp_path / "other").folder == tmp_path / "other"
