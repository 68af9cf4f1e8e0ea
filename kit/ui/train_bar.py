"""The bar with the plan in a sentence, Train, Pause and Stop: at both ends of the form.

The upper one stays in view where the front end allows it. The run is shown beneath the bar in which
Train was pressed. The form knows nothing of it: `TrainBar(form)` puts itself into it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import ipywidgets as widgets

from kit import planning
from kit.errors import KitError
from kit.hosts import host
from kit.launching.command import processes_for
from kit.queueing.changing import waits_as
from kit.queueing.store import queue_in
from kit.reading.paths import path_of
from kit.runs.lock import who_is_at_work_in
from kit.runs.run import Answer, Run
from kit.runs.unfinished import told_of_unfinished
from kit.settings import Folders, Settings
from kit.settings.effective import trains_together
from kit.ui.beginning import begin
from kit.ui.errors import panel
from kit.ui.form.form import Form
from kit.ui.form.problem_texts import as_lines, with_labels
from kit.ui.look import Script, block, escaped
from kit.ui.monitor.dashboard import Dashboard
from kit.ui.monitor.elsewhere import Elsewhere
from kit.ui.monitor.following import Follower
from kit.ui.monitor.history import OVER
from kit.ui.monitor.results import newest_run
from kit.ui.monitor.session import Session
from kit.ui.queue_list import QueueList
from kit.ui.unfinished import Question

NOT_ASKED = (
    "The queue could not ask you which is meant. Give this one another output_name to begin anew, "
    "or press one of the two buttons to train now."
)


class Bar:
    """One of the two bars, and the place beneath it where a run is shown."""

    def __init__(self, sentence: widgets.Widget, *, css: str) -> None:
        self.button = widgets.Button(
            description="Train",
            icon="play",
            button_style="success",
            tooltip="Plan anew and begin; what is wrong is said here",
            layout=widgets.Layout(width="auto"),
        )
        self.button.add_class("kit-train")  # what follow.js looks for
        self.queue_button = widgets.Button(
            description="Add to queue",
            icon="plus",
            tooltip="Train it later, after what waits already: kit.queue()",
            layout=widgets.Layout(width="auto"),
        )
        self.problems_button = widgets.Button(
            icon="exclamation-triangle",
            button_style="warning",
            tooltip="Show the field that needs a change",
            layout=widgets.Layout(width="auto", display="none"),
        )
        self._idle = (sentence, self.problems_button, self.button, self.queue_button)
        self.root = widgets.HBox(
            list(self._idle),
            layout=widgets.Layout(flex_flow="row wrap", align_items="center", width="100%"),
        )
        self.root.add_class(css)
        self.line = block()
        self.question: Question | None = None  # about an unfinished run that is made otherwise
        self.slot = widgets.VBox([], layout=widgets.Layout(width="100%"))
        self.queue_place = widgets.VBox([], layout=widgets.Layout(width="100%"))

    def tell(self, problems: int, name: str, *, is_blocked: bool) -> None:
        """The number of problems, and what the button would do."""
        self.button.description = name
        self.button.disabled = is_blocked
        counted = "1 problem" if problems == 1 else f"{problems} problems"
        self.problems_button.description = counted
        self.problems_button.layout.display = None if problems else "none"

    def show_controls(self, *buttons: widgets.Widget) -> None:
        """The buttons of a run beside Train."""
        self.root.children = [*self._idle, *buttons]


class TrainBar:
    """Both bars, and the run that they show."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._shown: Session | None = None
        self._past = ""  # the run whose past is shown
        self._queue: QueueList | None = None
        self.bars = (
            Bar(form.sentence, css="kit-sticky"),
            Bar(form.sentence, css="kit-end-bar"),
        )
        self.upper, self.lower = self.bars
        for bar, place in zip(self.bars, (form.top, form.end), strict=True):
            bar.button.on_click(self._pressed(bar))
            bar.queue_button.on_click(self._queued(bar))
            bar.problems_button.on_click(lambda _: form.show_problem())
            bar.question = Question(self._answered(bar))
            place.children = [bar.root, bar.question.root, bar.line, bar.queue_place]
        form.run.children = [self.upper.slot]
        form.end.children = [*form.end.children, self.lower.slot]
        form.scripts.append(Script(files("kit.ui").joinpath("follow.js").read_text("utf-8")))
        form.on_planned.append(self.offer)
        self.offer()
        if Session.current is not None:
            self.attach(Session.current, self.upper)
        else:
            self._show_last()

    def train(self, bar: Bar | None = None, answer: Answer = "ask") -> None:
        """Start what stands in the form and show it beneath this bar, or say there why not.

        answer: what to do with an unfinished run that is made otherwise.
        """
        bar = bar or self.upper
        if self._form.problems:
            self._refuse(bar)
            return
        try:
            settings = self._form.settings
            processes = processes_for(settings.machine)
            plan = planning.plan(settings, unfinished=answer, processes=processes)
            if plan.run.asks:
                self._ask(plan.run)
                return
            session = begin(plan, settings.to_toml(with_help=False), answer)
        except KitError as error:
            bar.line.value = panel(error)
            self._form.show_problem()
        else:
            for each in self.bars:
                each.line.value = ""
            self.attach(session, bar)
            self._tell_queued(bar, settings.folders)
            self._form.memory.run_dir = str(session.run_dir)
            self._form.memory.keep()

    def attach(self, session: Session, bar: Bar) -> None:
        """Show this run beneath the bar; the start folds to one line."""
        self._shown = session
        self._place([session.dashboard.root], bar)
        self._form.start.fold(is_folded=True, pictures=session.pictures)
        if session.is_running():
            self._form.is_training = True
            self._form.plan_line.layout.display = "none"  # the run tells its notices itself
            controls = session.dashboard.controls
            if controls is not None:
                for each in self.bars:
                    each.show_controls(controls.pause, controls.stop)
            self.offer()
            session.when_over.append(self._over)
            if not session.is_running():  # it has ended between the two lines
                self._over()

    def offer(self) -> None:
        """Name what the button would do; an unfinished run of these settings is shown with it."""
        plan, mistakes = self._form.plan, len(self._form.mistakes)
        is_blocked = bool(self._form.problems)
        resumes = plan is not None and plan.run.resumes
        name = f"Resume from step {plan.run.from_step}" if plan and resumes else "Train"
        for bar in self.bars:
            bar.tell(mistakes, name, is_blocked=is_blocked or self._form.is_training)
        self._ask(plan.run if plan and not is_blocked and not self._form.is_training else None)
        if plan is None or not resumes or self._form.is_training:
            return
        is_new = self._shown is None or self._shown.run_dir != plan.run.dir
        if is_new and self._past != str(plan.run.dir):
            self._past = str(plan.run.dir)
            past = Dashboard(plan)
            past.history.state = "stopped"
            past.draw()
            self._place([past.root], self.upper)

    def _ask(self, run: Run | None) -> None:
        """Show the question that a plan's run asks, in both bars."""
        for bar in self.bars:
            if bar.question is not None:
                bar.question.show(run, lambda text: with_labels(text, self._form.fields))

    def _answered(self, bar: Bar) -> Callable[[Answer], None]:
        return lambda answer: self.train(bar, answer)

    def _show_last(self) -> None:
        """The run that this form started last, from its folder: the kernel may be a new one."""
        run_dir = self._last_run()
        if run_dir is None or self._past:
            return
        if who_is_at_work_in(run_dir) is not None:
            self._show_at_work(run_dir)
            return
        try:
            past = Dashboard.replay(run_dir)
        except (KitError, OSError):  # removed just now, or damaged
            return
        self._past = str(run_dir)
        if past.history.state not in OVER:
            past.history.state = "stopped"
            past.draw()
        self._place([past.root], self.upper)

    def _show_at_work(self, run_dir: Path) -> None:
        """A run at work in other processes, with its buttons.

        One in several processes has no kernel, and takes this one's place beside Train. One in a
        single process is another notebook's, or a terminal's, and leaves Train free.
        """
        if _trains_together(run_dir):
            self.attach(Elsewhere.attach(run_dir), self.upper)
            return
        self._past, follower = str(run_dir), Follower.of(run_dir)
        with suppress(OSError):  # removed just now
            follower.start()
            self._place([follower.dashboard.root], self.upper)

    def _last_run(self) -> Path | None:
        """As the form remembers it, or else the newest of its name.

        A form that was given settings remembers none, a fast disk goes with its session, and a run
        that failed before its first step leaves no folder.
        """
        told = Path(self._form.memory.run_dir)
        if told.suffix and (told / "events.jsonl").is_file():
            return told
        folders = self._form.readable().folders
        places = (Path(folders.output_dir), host().output_folder)
        names = (told.stem, folders.output_name)
        found = (newest_run(places, name) for name in names if name)
        return next((run for run in found if run is not None), None)

    def add_to_queue(self, bar: Bar) -> None:
        """Let it wait in the queue, and show that beneath the bar; or say there why not."""
        if self._form.problems:
            self._refuse(bar)
            return
        run = self._form.plan.run if self._form.plan else None
        if run is not None and run.asks and not self._form.is_training:
            self._say(bar, "\n".join([*told_of_unfinished(run), NOT_ASKED]))
            return
        for each in self.bars:
            each.line.value = ""
        self.close_queue()
        if self._queue is None:
            self._queue = QueueList(
                queue_in(),
                lambda: self._form.settings,
                close=self.close_queue,
                chosen_gpus=lambda: self._form.gpus.chosen,
            )
        bar.queue_place.children = self._queue.parts
        self._queue.add_form()
        self._form.pictures_in.keep_name()

    def _tell_queued(self, bar: Bar, folders: Folders) -> None:
        """What begins here stays in the queue, which would train it once more."""
        with suppress(KitError):  # a damaged queue is told where it is shown
            place = path_of(folders.output_dir, "output_dir")
            entry = waits_as(queue_in(), folders.output_name, place)
            if entry is not None:
                told = (
                    f"{entry.name} waits in the queue, too, as run {entry.number}: once this one "
                    "is done, the queue trains it once more under another name. Remove takes it "
                    "out there (kit.queue())."
                )
                bar.line.value = f"<div class='kit-finding'>{escaped(told)}</div>"

    def close_queue(self) -> None:
        """Show no queue."""
        for bar in self.bars:
            bar.queue_place.children = ()

    def _refuse(self, bar: Bar) -> None:
        """Say what stands in the way."""
        missing = self._form.autofill.missing()
        self._say(bar, "\n".join([*([missing] if missing else []), *self._form.mistakes]))
        self._form.show_problem()

    def _queued(self, bar: Bar) -> Callable[[widgets.Button], None]:
        return lambda _: self.add_to_queue(bar)

    def _place(self, shown: list[widgets.Widget], bar: Bar) -> None:
        for each in self.bars:
            each.slot.children = shown if each is bar else []

    def _pressed(self, bar: Bar) -> Callable[[widgets.Button], None]:
        return lambda _: self.train(bar)

    def _say(self, bar: Bar, text: str) -> None:
        told = as_lines(with_labels(text, self._form.fields))
        bar.line.value = f"<div class='kit-problem' role='alert'>{told}</div>"

    def _over(self) -> None:
        """In the run's own thread: the button is free again, and may have become another one."""
        self._form.is_training = False
        self._form.plan_line.layout.display = None
        for bar in self.bars:
            bar.show_controls()
        self._form.refresh()


def _trains_together(run_dir: Path) -> bool:
    """The run was started with several processes, as its own settings say."""
    try:
        return trains_together(Settings.load(run_dir / "run.toml").machine)
    except KitError:
        return False
