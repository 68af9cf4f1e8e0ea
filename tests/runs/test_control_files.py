"""Requests from another process: heard once, in order, by the training that was meant."""

import json
import subprocess
import sys
import threading

import pytest

from kit.control import LrRequest, RunControl, SampleRequest, SaveRequest, UnreadRequest
from kit.errors import KitError
from kit.runs import control_files
from kit.runs.control_files import ASKS, FOLDER, Asked, Inbox, leave, was_read
from kit.runs.lock import NAME, at_work_in, who_is_at_work_in
from kit.settings.prompts import parse_prompt


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "cat.run"


def heard(run_dir, hold, *asked):
    control = RunControl()
    for each in asked:
        leave(run_dir, each)
    Inbox(run_dir, hold.id)(control)
    return control


def test_every_button_can_be_asked_for_and_what_was_asked_comes_in_order(run_dir):
    with at_work_in(run_dir) as hold:
        control = heard(
            run_dir,
            hold,
            Asked("save"),
            Asked("sample"),
            Asked("sample", prompt="a cat --d 3"),
            Asked("rate", factor=0.5),
            Asked("rate", part="unet", rate=1e-5),
            Asked("pause"),
        )
        assert control.take() == [
            SaveRequest(),
            SampleRequest(),
            SampleRequest(parse_prompt("a cat --d 3")),
            LrRequest(factor=0.5),
            LrRequest("unet", rate=1e-5),
        ]
        assert control.pause_requested
        assert not (run_dir / FOLDER).exists()  # the answer
        assert not heard(run_dir, hold, Asked("pause"), Asked("go-on")).pause_requested
        assert heard(run_dir, hold, Asked("stop")).stop_requested
    assert not run_dir.exists()  # nothing stays


def test_more_than_ten_keep_their_order(run_dir):
    with at_work_in(run_dir) as hold:
        rates = [Asked("rate", factor=float(n)) for n in range(1, 13)]
        taken = heard(run_dir, hold, *rates).take()
    assert [each.factor for each in taken] == [float(n) for n in range(1, 13)]


def test_what_was_meant_for_a_training_that_was_killed_stops_no_later_one(run_dir):
    with at_work_in(run_dir):
        left = leave(run_dir, Asked("stop"))
        text = left.file.read_text("utf-8")
    left.file.write_text(text, "utf-8")
    with at_work_in(run_dir) as hold:
        assert not heard(run_dir, hold).stop_requested
        assert not left.file.exists()  # nor does it wait for ever


def test_a_file_that_cannot_be_taken_away_counts_once(run_dir, monkeypatch):
    with at_work_in(run_dir) as hold:
        leave(run_dir, Asked("save"))
        control, inbox = RunControl(), Inbox(run_dir, hold.id)
        with monkeypatch.context() as patched:
            patched.setattr("pathlib.Path.unlink", refusing)
            for _ in range(3):
                inbox(control)
        assert control.take() == [SaveRequest()]
        inbox(control)
        assert control.take() == []


def refusing(*_, **__):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"what": "stop", "to": 5}', '{"what": "dance", "to": "ID"}',
        '{"what": "rate", "to": "ID"}', '{"what": "rate", "rate": 1.0, "factor": 1.0, "to": "ID"}',
        '{"what": "sample", "prompt": "a --w wide", "to": "ID"}', '{"what": "stop", "soon": true}',
    ],
)  # fmt: skip
def test_what_is_not_understood_is_told_and_taken_away(run_dir, text):
    with at_work_in(run_dir) as hold:
        (run_dir / FOLDER).mkdir()
        (run_dir / FOLDER / "1.json").write_text(text.replace("ID", hold.id), "utf-8")
        control = heard(run_dir, hold)
        [told] = control.take()
        assert isinstance(told, UnreadRequest)
        assert "not understood, and nothing was done" in told.text
        assert not control.stop_requested
        assert not (run_dir / FOLDER).exists()


def test_a_request_that_is_half_written_waits_for_its_other_half(run_dir):
    with at_work_in(run_dir) as hold:
        (run_dir / FOLDER).mkdir()
        (run_dir / FOLDER / "1.json.part").write_text("{", "utf-8")
        assert heard(run_dir, hold).take() == []
        assert (run_dir / FOLDER / "1.json.part").exists()


def test_a_run_that_is_not_at_work_refuses_and_names_those_that_are(run_dir, tmp_path):
    run_dir.mkdir()
    with pytest.raises(KitError, match=r"No training is at work in .*cat\.run"):
        leave(run_dir, Asked("stop"))
    with (
        at_work_in(tmp_path / "cat-2.run"),
        pytest.raises(KitError, match=f"At work in {tmp_path} is cat-2"),
    ):
        leave(run_dir, Asked("stop"))
    assert list(run_dir.iterdir()) == []


def test_one_of_an_older_version_is_refused_since_it_would_not_hear(run_dir):
    with at_work_in(run_dir) as hold:
        words = who_is_at_work_in(run_dir)
        assert words.pop("id") == hold.id
        (run_dir / NAME).write_text(json.dumps(words), "utf-8")
        with pytest.raises(KitError, match="hears no requests"):
            leave(run_dir, Asked("stop"))


def test_nobody_is_at_work_after_a_kill(run_dir):
    code = "import sys, time; from pathlib import Path; from kit.runs.lock import at_work_in\n"
    code += "with at_work_in(Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run_dir)], stdout=subprocess.PIPE, text=True
    )
    try:
        process.stdout.readline()
        assert who_is_at_work_in(run_dir)["pid"] == process.pid
        left = leave(run_dir, Asked("stop"))
        assert was_read(left, patience=0) is None
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()
    assert (run_dir / NAME).exists()
    assert who_is_at_work_in(run_dir) is None
    assert was_read(left, patience=20) is False
    assert not left.file.exists()


def test_whoever_asks_hears_when_it_was_read(run_dir):
    with at_work_in(run_dir) as hold:
        left = leave(run_dir, Asked("save"))
        threading.Timer(0.3, lambda: Inbox(run_dir, hold.id)(RunControl())).start()
        assert was_read(left, patience=20) is True


def test_where_nobody_asks_a_step_costs_one_look(run_dir, monkeypatch):
    looks = []
    with at_work_in(run_dir) as hold:
        inbox = Inbox(run_dir, hold.id)
        real = control_files.Path.stat
        with monkeypatch.context() as patched:
            patched.setattr(
                control_files.Path, "stat", lambda path, **k: looks.append(path) or real(path, **k)
            )
            patched.setattr(control_files.Path, "iterdir", refusing)
            inbox(RunControl())
    assert looks == [run_dir / FOLDER]


def test_many_processes_ask_while_one_reads_and_nothing_is_lost(run_dir):
    code = "import sys; from pathlib import Path\n"
    code += "from kit.runs.control_files import Asked, leave\n"
    code += "for n in range(40): leave(Path(sys.argv[1]), Asked('rate', factor=float(n)))"
    with at_work_in(run_dir) as hold:
        asking = [
            subprocess.Popen([sys.executable, "-c", code, str(run_dir)], stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        control, inbox, taken = RunControl(), Inbox(run_dir, hold.id), []
        while any(process.poll() is None for process in asking):
            inbox(control)
            taken += control.take()
        for process in asking:
            assert process.communicate()[1] == b""
        inbox(control)
        taken += control.take()
    factors = [each.factor for each in taken]
    assert sorted(factors) == sorted([float(n) for n in range(40)] * 2)


def test_each_word_has_its_answer_in_the_terminal():
    from kit.cli.running import TOLD

    assert set(TOLD) == set(ASKS)
