"""What a notebook's cells say: show the form, listen to a run, look at one that is over."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from kit import planning
from kit.errors import KitError
from kit.events import Event, Finished
from kit.hosts import host
from kit.launching.command import processes_for
from kit.planning import Plan
from kit.queueing.store import queue_in
from kit.runs.finding import find_run
from kit.settings import Settings
from kit.sinks import Sink, hear_elsewhere, listening, was_heard_elsewhere
from kit.ui import errors, whole_state
from kit.ui.beginning import begin
from kit.ui.form.form import Form
from kit.ui.form.remembered import remember, remembered, remembered_state
from kit.ui.monitor.choice import ChoicePanel
from kit.ui.monitor.dashboard import Dashboard, events_file
from kit.ui.monitor.following import Follower
from kit.ui.monitor.results import Results, newest_run
from kit.ui.monitor.session import Session
from kit.ui.monitor.waiting import until_over
from kit.ui.queue_list import QueueList
from kit.ui.train_bar import TrainBar

AUTOTRAIN = "LORA_KIT_AUTOTRAIN"

_form: Form | None = None  # the newest
_follower: Follower | None = None  # of what is watched


def _prepare_kernel() -> None:
    """From now on errors are quiet panels, and a page that is opened anew finds all widgets."""
    errors.install()
    whole_state.install()


def show(settings: Settings | None = None) -> Form:
    """Show the form with its Train button; `.settings` of what is returned reads it.

    settings: what stands in it; None means what stood in it last, or else nothing as yet. While a
    run of this kernel is at work, its form and dashboard are shown again as they are.
    """
    global _form
    _prepare_kernel()
    session = Session.current
    if _form is None or session is None or not session.is_running():
        reopens = settings is None and remembered_state() is not None
        _form = Form(settings if settings or reopens else remembered(), reopens=reopens)
        _form.on_valid.append(remember)
        _form.memory.keeps = True
        TrainBar(_form)
    _form.show()
    return _form


def watch(run_dir: str | Path) -> Dashboard:
    """Show a run from its folder: a finished one, or one that is at work, which is followed.

    One that is at work has its buttons, whether this kernel, another one, a terminal or the queue
    trains it. run_dir: its folder, its name, or a file of it; where it works on a fast disk and is
    copied to a slow one, either place.

    Raises: OutputError where there is no such run.
    """
    global _follower
    _prepare_kernel()
    if _follower is not None:
        _follower.end()
        _follower = None
    file, session = events_file(_where_it_works(run_dir)), Session.current
    if session and session.is_running() and session.run_dir.samefile(file.parent):
        dashboard = session.dashboard
    else:
        _follower = Follower.of(file.parent)
        _follower.start()
        dashboard = _follower.dashboard
    dashboard.show()
    return dashboard


def _where_it_works(run_dir: str | Path) -> str | Path:
    try:
        return find_run(run_dir).works_in
    except KitError:  # an events.jsonl that lies by itself can be shown, too
        return run_dir


def queue(folder: str | Path = "") -> QueueList:
    """The queue of runs, to be a cell's last line; `kit queue` is the same in a terminal.

    folder: where it lies; "" means the usual place.

    Raises: Unreadable where that is no path.
    """
    _prepare_kernel()
    return QueueList(queue_in(folder), _form_settings, chosen_gpus=_chosen_gpus)


async def wait() -> None:
    """Stay busy until the run of this kernel is over; where there is none yet, wait for Train.

    That is for at most 30 minutes, and only where somebody sits in front of the notebook: a program
    that runs it (nbclient, papermill) goes on at once.

    The notebook's stop sign asks the run to end after its step; pressed again, at once. Where the
    variable LORA_KIT_AUTOTRAIN is 1, as for a notebook that runs without a person, what stands in
    the form is trained first.

    Raises: what ended the run, if it failed.
    """
    _prepare_kernel()
    if os.environ.get(AUTOTRAIN) == "1" and Session.current is None and _form is not None:
        settings = _form.settings
        plan = planning.plan(settings, processes=processes_for(settings.machine))
        begin(plan, settings.to_toml(with_help=False))
    await until_over()


def results(run_dir: str | Path | None = None) -> Results:
    """What a run has come to, to be a cell's last line: its LoRA, its pictures, its files.

    run_dir: a run's folder; None means this kernel's run, or else the one that was at work last in
    the output folder, whichever kernel it was.

    Raises: OutputError where run_dir holds no events.jsonl.
    """
    _prepare_kernel()
    if run_dir is not None:
        return Results.of_run(events_file(run_dir).parent)
    if (session := Session.current) is not None:
        return session.dashboard.results
    newest = newest_run(_output_folders())
    return Results.of_run(newest) if newest else Results("", {})


def choose(run_dir: str | Path | None = None) -> ChoicePanel:
    """Compare a run's files and say which to keep, to be a cell's last line; it works meanwhile.

    run_dir: as for `results`. What was found lies in the run's folder, and is shown again.

    Raises: OutputError where there is no such run.
    """
    _prepare_kernel()
    if run_dir is None:
        session = Session.current
        newest = session.run_dir if session else newest_run(_output_folders())
        run_dir = newest or host().output_folder / "none.run"
    panel = ChoicePanel()
    panel.show_of(events_file(run_dir).parent, is_over=True)
    panel.start()
    return panel


def _output_folders() -> list[Path]:
    """Where runs may lie: as the form says, as it said last, and where this host keeps them."""
    folders = []
    for settings in (_form_settings(), remembered()):
        if settings is not None:
            folders.append(Path(settings.folders.output_dir))
    return [*folders, host().output_folder]


def _form_settings() -> Settings | None:
    try:
        return _form.settings if _form is not None else None
    except KitError:
        return None


def _chosen_gpus() -> list[int]:
    return _form.gpus.chosen if _form is not None else []


def listeners(plan: Plan, *more: Sink) -> Sink:
    """One listener for a run: its events.jsonl, loss.png and loggers, and whoever else is given.

        tell = kit.listeners(plan, dashboard)
        for event in kit.train(plan):
            tell(event)

    `kit.train` then adds none of its own. A listener that breaks is muted; it never ends a run.
    """
    _prepare_kernel()
    stack = ExitStack()
    tell = stack.enter_context(listening(plan.run, *more, settings=plan.settings))
    hear_elsewhere(plan.run)
    stack.callback(was_heard_elsewhere, plan.run)

    def tell_until_the_end(event: Event) -> None:
        tell(event)
        if isinstance(event, Finished):
            stack.close()

    return tell_until_the_end


def run(events: Iterable[Event], plan: Plan) -> Dashboard:
    """All of a run in one line, `kit.run(kit.train(plan), plan)`: its dashboard and its folder."""
    _prepare_kernel()
    dashboard = Dashboard(plan)
    with listening(plan.run, dashboard, settings=plan.settings) as tell:
        hear_elsewhere(plan.run)
        try:
            for event in events:
                tell(event)
        except BaseException:
            dashboard.break_off()
            raise
        finally:
            was_heard_elsewhere(plan.run)
    return dashboard
