"""The run in the background: one at a time, heard, stopped, and readable when it fails."""

import contextvars

import pytest

from kit import planning
from kit.errors import Diverged, KitError
from kit.events import Failed, Stepped
from kit.sinks import read_events
from kit.ui.monitor.session import Session
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, toy_settings
from tests.ui.runs import Script, until

pytestmark = pytest.mark.usefixtures("kernel")


def test_it_trains_in_the_background_and_tells_its_dashboard_and_its_folder(small_plan):
    script, heard = Script(steps=20), []
    session = Session.start(small_plan, heard.append, train=script.train)
    assert session.is_running()
    script.let(0)
    session.join(20)
    assert session.dashboard.history.state == "done"
    assert session.error is None
    assert "20 of 20" in session.dashboard.numbers.value
    assert read_events(small_plan.run.dir / "events.jsonl") == heard
    assert (small_plan.run.dir / "loss.png").is_file()


def test_its_thread_has_the_context_of_who_started_it_and_dies_with_the_kernel(small_plan):
    """Without the context ipykernel 7.0 raises LookupError at the first widget that changes."""
    parent = contextvars.ContextVar("shell_parent")
    parent.set("the cell")
    seen = []

    def train(plan, control):
        seen.append(parent.get())
        yield from Script(steps=1, pace=0.001).train(plan, control)

    session = Session.start(small_plan, train=train)
    session.join(20)
    assert seen == ["the cell"]
    assert session._thread.daemon


def test_a_second_run_is_refused_and_the_first_goes_on(small_plan):
    script = Script(steps=9)
    session = Session.start(small_plan, train=script.train)
    script.let(2)
    until(lambda: session.dashboard.history.step == 2)
    with pytest.raises(KitError, match=r"cat, step 2 of 9") as refused:
        Session.start(small_plan, train=script.train)
    assert "press Stop" in str(refused.value)
    assert Session.current is session
    script.let(0)
    session.join(20)
    assert session.dashboard.history.state == "done"
    Session.start(small_plan, train=Script(steps=1, pace=0.001).train).join(20)


def test_an_error_becomes_a_panel_with_the_remedy_and_a_folded_traceback(small_plan):
    error = Diverged("The loss is no number.", do="Lower learning_rate.")
    session = Session.start(small_plan, train=Script(error=error, pace=0.001).train)
    session.join(20)
    shown = session.dashboard.failure.value
    assert session.error is error
    assert "Lower learning_rate" in shown
    assert "<details" in shown
    assert "Traceback (most recent call last)" in shown
    assert "kit-state failed" in session.dashboard.title.value
    assert session.dashboard.controls.root.layout.display == "none"
    events = read_events(small_plan.run.dir / "events.jsonl")
    assert events[-1] == Failed("The loss is no number.\nLower learning_rate.")
    assert [event.step for event in events if isinstance(event, Stepped)] == [1, 2]


def test_a_mistake_of_ours_is_named_and_tokens_in_it_are_blotted_out(small_plan, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_not_for_you")
    error = ValueError("cannot log in with hf_not_for_you <b>")
    session = Session.start(small_plan, train=Script(error=error, pace=0.001).train)
    session.join(20)
    shown = session.dashboard.failure.value
    assert "ValueError: cannot log in with *** &lt;b&gt;" in shown
    assert "go on from the last state" in shown
    assert "hf_not_for_you" not in shown
    assert "hf_not_for_you" not in session.dashboard.notes.value
    assert "hf_not_for_you" not in (small_plan.run.dir / "events.jsonl").read_text("utf-8")


def test_the_stop_sign_is_a_request_the_first_time_and_at_once_the_second(small_plan):
    script = Script()
    script.ignores_requests = True  # as a step that takes very long
    session = Session.start(small_plan, train=script.train)
    assert script.began.wait(20)
    session.interrupt()
    assert session.control.stop_requested
    assert ">stopping<" in session.dashboard.title.value
    session.join(0.1)
    assert session.is_running()
    session.interrupt()
    session.join(20)
    assert not session.is_running()
    assert ">stopped<" in session.dashboard.title.value
    assert session.error is None


def test_stop_beside_the_progress_ends_it_and_says_so_at_once(small_plan):
    script = Script()
    session = Session.start(small_plan, train=script.train)
    assert script.began.wait(20)
    session.dashboard.controls.stop.click()
    assert ">stopping<" in session.dashboard.title.value
    session.join(20)
    assert ">stopped<" in session.dashboard.title.value


def test_nothing_is_printed(small_plan, capfd):
    Session.start(small_plan, train=Script(steps=30, pace=0.001).train).join(20)
    assert capfd.readouterr() == ("", "")


def test_the_toy_family_trains_behind_the_buttons(tmp_path):
    model = write_tiny(tmp_path / "model", "sd1", thin=True)
    images = draw_images(tmp_path / "images")
    plan = planning.plan(toy_settings(model, images, tmp_path / "out", max_train_steps=300))
    session = Session.start(plan)
    until(lambda: session.dashboard.history.step >= 2, seconds=120)
    session.dashboard.controls.save.click()
    session.dashboard.controls.rate.value = "x0.5"
    session.dashboard.controls.change.click()
    until(lambda: session.dashboard.history.changes, seconds=60)
    until(lambda: session.dashboard.history.saved, seconds=60)
    session.dashboard.controls.stop.click()
    session.join(60)
    assert session.error is None
    past = session.dashboard.history
    assert past.state == "stopped"
    assert planning.plan(plan.settings).run.from_step == past.step
    assert (tmp_path / "out" / f"toy-step{past.saved[0].step:08d}.safetensors").is_file()
