"""Killed at any line between a step and the next, or in its end, a run makes all it owed, once.

Every line of the path is tried by `LORA_KIT_EVERY_LINE=1 pytest tests/runs/test_side_products.py`
(some minutes); a usual run tries lines that are spread over it.
"""

import json
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import kit
from kit import planning
from kit.events import Finished, Sampled, Saved, StateKept, Stepped
from kit.runs.record import read_record
from kit.sinks import JsonLines
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, toy_settings

STEPS = 4
TRIED = 6
WATCHED = (
    "training/loop.py", "training/checkpoint.py", "training/requests.py", "training/state_file.py",
    "runs/state_files.py", "runs/record.py", "runs/atomic_write.py", "sinks/jsonl.py",
)  # fmt: skip
TOLD = {kind.__name__ for kind in (Stepped, Sampled, Saved, StateKept, Finished)}
ROOT = Path(kit.__file__).parent


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    model = write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)
    images = draw_images(tmp_path_factory.mktemp("images"))
    return lambda out: toy_settings(
        model, images, out,
        max_train_steps=STEPS, text_encoder_lr=0, save_every_n_steps=1, save_last_n_steps=1,
        save_state=True, sample_every_n_steps=1, sample_prompts="a zib ball --w 64 --h 64 --s 1",
    )  # fmt: skip


def in_child(settings, hear=lambda event: None):
    """Train with an events.jsonl; the exit code of the child."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        torch.set_num_threads(1)
        run = planning.plan(settings).run
        lines = JsonLines(run.dir / "events.jsonl", run.from_step)
        for event in kit.train(planning.plan(settings), listeners=[lines]):
            hear(event)
        status = 0
    finally:
        os._exit(status)


class Lines:
    """Counts lines of the watched files once it has begun, and ends the process at one of them.

    A line counts the first two times: after a step, and in the end or once more in a loop.
    """

    def __init__(self, at=0):
        self.at, self.count, self._met = at, 0, Counter()
        self._watched = {str(ROOT / name) for name in WATCHED}

    def begin(self):
        sys.settrace(self._called)
        frame = sys._getframe(1)
        while frame is not None:  # generators and loops that are on their way
            if frame.f_code.co_filename in self._watched:
                frame.f_trace = self._line
            frame = frame.f_back

    def _called(self, frame, event, argument):
        return self._line if frame.f_code.co_filename in self._watched else None

    def _line(self, frame, event, argument):
        if event == "line":
            place = frame.f_code.co_filename, frame.f_lineno
            self._met[place] += 1
            self.count += self._met[place] <= 2
            if self.count == self.at:
                os._exit(9)
        return self._line


def timeless(path):
    return re.sub(r"_20\d{12}", "_TIME", Path(path).name)


def left_by(out):
    """Every file by its timeless path; two of one name are an error."""
    paths = [path for path in out.rglob("*") if path.is_file() and path.name != "run.toml"]
    found = {str(path.parent.relative_to(out) / timeless(path)): path for path in paths}
    assert len(found) == len(paths), "something lies there twice"
    return found


def story(out):
    told = []
    for line in (out / "toy.run" / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] in TOLD:
            event = {k: v for k, v in event.items() if k not in ("seconds", "megabytes")}
            event["path"] = timeless(event.get("path", ""))
            event["removed"] = [timeless(path) for path in event.get("removed", ())]
            told.append(json.dumps(event, sort_keys=True))
    return sorted(told)


def assert_equal(whole, broken):
    mine, theirs = left_by(whole), left_by(broken)
    assert sorted(mine) == sorted(theirs)
    for name, path in mine.items():
        if path.suffix == ".safetensors":
            one, other = load_file(path), load_file(theirs[name])
            assert all(torch.equal(one[key], other[key]) for key in one), name
        elif path.suffix == ".png":
            assert path.read_bytes() == theirs[name].read_bytes(), name
    one, other = Counter(story(whole)), Counter(story(broken))
    assert not one - other, f"is missing: {[*(one - other)]}"
    assert not other - one, f"is too much: {[*(other - one)]}"


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    """The unbroken run, the same one up to its third step, and how many lines follow from there."""
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kit.training.checkpoint.SHARE", float("inf"))
        assert in_child(asked(place / "all")) == 0
        in_child(asked(place / "begun"), lambda e: e == third(e) and os._exit(9))
        lines, counted = Lines(), place / "count"

        def count(event):
            if event == third(event):
                lines.begin()
            if isinstance(event, Finished):
                counted.write_text(str(lines.count))

        shutil.copytree(place / "begun", place / "counted")
        assert in_child(asked(place / "counted"), count) == 0
        yield place, int(counted.read_text())


def third(event):
    return event if isinstance(event, Stepped) and event.step == 3 else None


def tried(count):
    if os.environ.get("LORA_KIT_EVERY_LINE"):
        return range(1, count + 40)
    return [1 + number * (count + 20) // TRIED for number in range(TRIED)]


@pytest.mark.slow
def test_a_kill_at_any_line_loses_nothing_and_doubles_nothing(whole, asked, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.training.checkpoint.SHARE", float("inf"))
    place, count = whole
    assert count > 150, "the path is no longer watched"
    wrong = []
    for at in tried(count):
        out = tmp_path / str(at)
        shutil.copytree(place / "begun", out)
        lines = Lines(at)
        status = in_child(asked(out), lambda e, lines=lines: e == third(e) and lines.begin())
        record = read_record(out / "toy.run")
        if status != 0 and not record.finished:
            assert in_child(asked(out)) == 0
        if record.finished:  # the kill came after it was done: nothing but its state may be left
            shutil.rmtree(out / "toy.run" / "state", ignore_errors=True)
            (out / "toy.run" / "at_work.json").unlink(missing_ok=True)
        try:
            assert_equal(place / "all", out)
        except AssertionError as error:
            wrong.append(f"line {at}: {str(error)[:600]}")
    assert not wrong, "\n".join(wrong)
