"""Watching a run that another kernel or process has started."""

import pytest

import kit.ui
from kit.events import Failed, to_line
from kit.sinks.tail import Tail
from kit.ui import Dashboard
from kit.ui.monitor.following import SILENT, Follower
from kit.ui.monitor.session import Session
from tests.ui.runs import Script, until, whole_run

pytestmark = pytest.mark.usefixtures("kernel")
EVENTS = list(whole_run(30))


@pytest.fixture
def file(tmp_path):
    (tmp_path / "cat.run").mkdir()
    return tmp_path / "cat.run" / "events.jsonl"


def write(file, events, mode="a"):
    with file.open(mode, encoding="utf-8") as lines:
        lines.write("".join(f"{to_line(event)}\n" for event in events))


def test_a_file_that_begins_anew_is_told_anew(file):
    write(file, EVENTS[:12])
    dashboard = Dashboard()
    follower = Follower(dashboard, Tail(file))
    follower.look()
    assert dashboard.history.step == 10
    write(file, EVENTS[:5], mode="w")  # a resumed run takes out what it lives anew
    follower.look()
    assert dashboard.history.steps == [1, 2, 3]


def test_a_run_at_work_is_followed_to_its_end(file, monkeypatch):
    monkeypatch.setattr("kit.ui.monitor.following.PERIOD", 0.02)
    write(file, EVENTS[:7])
    dashboard = kit.ui.watch(file.parent)
    assert dashboard.history.step == 5
    assert dashboard.controls is None  # it is not this kernel's
    write(file, EVENTS[7:])
    until(lambda: dashboard.history.state == "done")
    until(lambda: "30 of 30" in dashboard.numbers.value)


def test_a_run_that_is_over_is_not_followed(file):
    write(file, [*EVENTS[:7], Failed("The loss is no number.")])
    dashboard = kit.ui.watch(file)
    assert "kit-state failed" in dashboard.title.value
    assert "The loss is no number." in dashboard.notes.value
    assert not kit.ui.door._follower._thread.is_alive()


def test_a_long_silence_is_said(file):
    write(file, EVENTS[:7])
    follower = Follower(Dashboard(), Tail(file))
    heard = file.stat().st_mtime
    follower.look(now=lambda: heard + SILENT - 1)
    assert follower.dashboard.failure.value == ""
    follower.look(now=lambda: heard + 15 * 60)
    assert "for 15 minutes" in follower.dashboard.failure.value


def test_this_kernels_own_run_is_shown_as_it_is_with_its_buttons(small_plan, kernel):
    script = Script()
    session = Session.start(small_plan, train=script.train)
    assert script.began.wait(20)
    assert kit.ui.watch(small_plan.run.dir) is session.dashboard
    assert kernel[-1] is session.dashboard.root
