"""A run in processes of its own, beside its dashboard in the kernel."""

import sys
import time
from pathlib import Path

import pytest

import kit.ui
from kit import planning
from kit.errors import KitError
from kit.events import Failed, Finished, Stepped, to_line
from kit.hosts import Host
from kit.launching import own_process
from kit.runs import finding
from kit.runs.control_files import FOLDER, Asked
from kit.runs.lock import at_work_in
from kit.runs.run import place_for
from kit.sinks import read_events
from kit.ui.beginning import begin
from kit.ui.form.form import Form
from kit.ui.monitor import elsewhere, following
from kit.ui.monitor.elsewhere import Elsewhere
from kit.ui.monitor.following import Follower
from kit.ui.monitor.remote import RemoteControl
from kit.ui.monitor.session import Session, _leave
from kit.ui.train_bar import TrainBar
from tests.ui.runs import until, whole_run

pytestmark = pytest.mark.usefixtures("kernel")
STAND_IN = Path(__file__).parents[2] / "launching" / "stand_in.py"
EVENTS = list(whole_run(30))


@pytest.fixture
def processes(monkeypatch):
    """A stand-in takes the place of `kit train`; how it behaves is set before it starts."""
    monkeypatch.setattr(elsewhere, "PERIOD", 0.05)
    asked = {"how": "stops"}

    def command(settings, told_in, answer):
        asked.update(answer=answer, toml=settings.read_text("utf-8"), folder=settings.parent)
        run_dir = asked["run_dir"]
        return [sys.executable, str(STAND_IN), str(run_dir), asked["how"]]

    monkeypatch.setattr(own_process, "command", command)
    return asked


@pytest.fixture
def two(ready):
    return ready.replace(num_processes=2)


def launched(two, processes):
    plan = planning.plan(two, processes=2)
    processes["run_dir"] = plan.run.dir.absolute()
    return begin(plan, "toml", "go on"), plan


def test_train_with_two_processes_starts_them_outside_of_the_kernel(two, processes, monkeypatch):
    form = Form(two)
    processes["run_dir"] = form.plan.run.dir.absolute()
    assert form.plan.processes == 2
    bar = TrainBar(form)
    bar.upper.button.click()
    session = Session.current
    assert isinstance(session, Elsewhere)
    assert bar.upper.slot.children == (session.dashboard.root,)
    until(lambda: session.dashboard.history.total_steps == 10)
    assert "num_processes = 2" in processes["toml"]
    bar.upper.root.children[-1].click()  # Stop
    session.join(20)
    until(lambda: not form.is_training)
    assert session.error is None
    assert ">stopped<" in session.dashboard.title.value
    assert not processes["folder"].exists()


def test_what_is_asked_before_anybody_hears_waits(two, processes):
    session, _ = launched(two, processes)
    assert processes["answer"] == "go on"
    session.dashboard.controls.stop.click()  # at once: the process is still loading
    assert "It ends after this step" in session.dashboard.controls.line.value
    session.join(20)
    assert session.dashboard.history.state == "stopped"


def test_the_kernel_leaves_it_alone_at_its_end_and_the_stop_sign_asks_it(two, processes):
    session, _ = launched(two, processes)
    until(lambda: session.dashboard.history.total_steps == 10)
    _leave()
    assert not session.control.stop_requested
    assert session.is_running()
    session.interrupt()
    session.join(20)
    assert session.dashboard.history.state == "stopped"


def test_a_second_run_is_refused(two, processes):
    session, plan = launched(two, processes)
    with pytest.raises(KitError, match="at work in processes of its own"):
        Session.start(plan)
    session.interrupt()
    session.join(20)


@pytest.mark.parametrize(
    ("how", "told"),
    [("fails", "rank 1: out of memory"), ("nothing", "ended without a word"), ("dies", "without")],
)
def test_its_end_is_told_in_a_panel(two, processes, how, told):
    processes["how"] = how
    session, _ = launched(two, processes)
    session.join(20)
    assert isinstance(session.error, KitError)
    assert told in session.dashboard.failure.value
    assert ">failed<" in session.dashboard.title.value


def test_one_that_was_stopped_before_its_first_step_has_no_error(two, processes):
    processes["how"] = "given back"
    session, _ = launched(two, processes)
    session.join(20)
    assert session.error is None
    assert ">stopped<" in session.dashboard.title.value
    assert "before its first step" in session.dashboard.notes.value


def test_the_past_of_a_run_that_goes_on_is_not_told_twice(two, processes):
    plan = planning.plan(two, processes=2)
    plan.run.dir.mkdir(parents=True)
    write(plan.run.dir / "events.jsonl", [*EVENTS[:8], Finished(6, "asked to stop")])
    session, _ = launched(two, processes)
    until(lambda: session.dashboard.history.total_steps == 10)  # it began anew
    assert session.dashboard.history.steps == []
    session.interrupt()
    session.join(20)


def write(file, events, mode="a"):
    with file.open(mode, encoding="utf-8") as lines:
        lines.write("".join(f"{to_line(event)}\n" for event in events))


@pytest.fixture
def run_dir(tmp_path):
    run_dir = tmp_path / "output" / "cat.run"
    run_dir.mkdir(parents=True)
    write(run_dir / "events.jsonl", EVENTS[:7])
    return run_dir


def requests(run_dir):
    return [path.read_text("utf-8") for path in sorted((run_dir / FOLDER).iterdir())]


def test_a_new_kernel_has_the_run_of_its_form_again_with_its_buttons(
    settings, run_dir, monkeypatch
):
    monkeypatch.setattr(elsewhere, "PERIOD", 0.05)
    together = settings.replace(num_processes=2).to_toml(with_help=False)
    (run_dir / "run.toml").write_text(together, "utf-8")
    with at_work_in(run_dir):
        form = Form(settings)
        bar = TrainBar(form)
        session = Session.current
        assert isinstance(session, Elsewhere)
        assert session.dashboard.history.step == 5
        assert bar.upper.slot.children == (session.dashboard.root,)
        assert bar.upper.button.disabled
        bar.upper.root.children[-2].click()  # Pause
        [text] = requests(run_dir)
        assert '"what": "pause"' in text
        write(run_dir / "events.jsonl", EVENTS[7:])
    session.join(20)
    assert session.dashboard.history.state == "done"
    until(lambda: not form.is_training)


def test_a_run_of_another_kernel_is_shown_with_its_buttons_and_leaves_train_free(ready, run_dir):
    with at_work_in(run_dir):
        bar = TrainBar(Form(ready))
        assert Session.current is None
        assert not bar.upper.button.disabled
        [dashboard] = bar.upper.slot.children
        stop = next(
            each for each in everything_in(dashboard) if getattr(each, "description", "") == "Stop"
        )
        stop.click()
        assert '"what": "stop"' in requests(run_dir)[0]


def everything_in(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything_in(child)


def test_a_watched_run_of_a_terminal_has_the_buttons(run_dir, monkeypatch):
    monkeypatch.setattr(following, "PERIOD", 0.02)
    with at_work_in(run_dir):
        dashboard = kit.ui.watch(run_dir)
        controls = dashboard.controls
        controls.save.click()
        controls.prompt.value = "a dog --s 4"
        controls.sample.click()
        controls.rate.value = "x0.5"
        controls.change.click()
        told = requests(run_dir)
        assert ["save" in told[0], "a dog --s 4" in told[1], '"factor": 0.5' in told[2]] == [
            True
        ] * 3
        assert controls.control.take() == []  # nobody in this kernel would take them
        write(run_dir / "events.jsonl", EVENTS[7:])
        until(lambda: dashboard.history.state == "done")
    until(lambda: controls.root.layout.display == "none")


def test_a_run_that_works_on_a_fast_disk_is_watched_there(tmp_path, monkeypatch):
    drive, scratch = tmp_path / "drive", tmp_path / "scratch"
    here = Host("colab", tmp_path, drive, persistent=True, slow=drive, scratch=scratch)
    monkeypatch.setattr(finding, "host", lambda: here)
    working = place_for(drive, scratch) / "cat.run"
    for folder, steps in ((drive / "cat.run", EVENTS[:4]), (working, EVENTS)):
        folder.mkdir(parents=True)
        write(folder / "events.jsonl", steps)
    with at_work_in(working):
        assert kit.ui.watch(drive / "cat.run").run_dir == working
    assert kit.ui.watch("cat").history.step == 30


def test_where_nobody_hears_a_button_says_so(run_dir):
    with at_work_in(run_dir):
        dashboard = kit.ui.watch(run_dir)
    dashboard.controls.stop.click()
    assert "No training is at work" in dashboard.controls.line.value
    assert not dashboard.controls.stop.disabled
    assert not dashboard.controls.control.stop_requested


def test_who_rests_by_another_ones_wish_is_let_go_on(run_dir):
    with at_work_in(run_dir):
        controls = kit.ui.watch(run_dir).controls
        controls.update(rests=True, groups=[])
        controls.pause.click()
        assert '"what": "go-on"' in requests(run_dir)[0]
        controls.pause.click()  # it rests still, as far as it has told
        controls.update(rests=False, groups=[])
        controls.pause.click()
        assert '"what": "pause"' in requests(run_dir)[2]


def test_a_run_that_leaves_without_a_word_is_called_broken_off_after_a_while(run_dir, monkeypatch):
    monkeypatch.setattr(following, "LEFT", 0.05)
    with at_work_in(run_dir):
        follower = Follower.of(run_dir)
        assert not follower.look()
    assert not follower.look()  # its last word may come
    time.sleep(0.1)
    assert follower.look()
    assert "Nobody is at work in it any more" in follower.dashboard.notes.value
    assert follower.dashboard.controls.root.layout.display == "none"


def test_a_run_that_takes_its_folder_away_is_over(run_dir, monkeypatch):
    monkeypatch.setattr(following, "PERIOD", 0.02)
    with at_work_in(run_dir):
        follower = Follower.of(run_dir)
        follower.start()
        (run_dir / "events.jsonl").unlink()
    until(lambda: follower.dashboard.history.state == "stopped")
    assert "before its first step" in follower.dashboard.notes.value


def test_a_last_word_that_comes_late_is_heard(run_dir, monkeypatch):
    monkeypatch.setattr(following, "LEFT", 30)
    with at_work_in(run_dir):
        follower = Follower.of(run_dir)
        follower.look()
    assert not follower.look()
    write(run_dir / "events.jsonl", [Failed("Process 0 was killed")])
    assert follower.look()
    assert "Process 0 was killed" in follower.dashboard.notes.value


def test_a_control_that_does_not_wait_raises_where_nobody_hears(run_dir):
    with pytest.raises(KitError, match="No training is at work"):
        RemoteControl(run_dir).ask(Asked("stop"))
    patient = RemoteControl(run_dir, waits=True)
    patient.ask(Asked("stop"))
    assert patient.stop_requested
    with at_work_in(run_dir):
        patient.deliver()
        patient.deliver()
        assert len(requests(run_dir)) == 1
    assert isinstance(read_events(run_dir / "events.jsonl")[-1], Stepped)
