"""The queue in the notebook: its runs, what can be done with each, and a process that works it off.

That process is no part of the kernel: it goes on when the kernel is restarted.
"""

from __future__ import annotations

import contextvars
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import ipywidgets as widgets

from kit.errors import KitError, OutputError
from kit.hosts import known_secrets
from kit.launching.command import ROOT
from kit.queueing import changing
from kit.queueing.changing import New, at_work_already
from kit.queueing.links import unkept_tokens
from kit.queueing.outcome import STOPPED, is_worked_off, numbers_of, run_dir_of
from kit.queueing.store import VARIABLE, Content, Entry, Queue
from kit.queueing.sweeping import checked, new_of
from kit.reading.paths import path_of
from kit.runs.at_work import folders_of
from kit.settings import Settings
from kit.settings.links import handed_on
from kit.ui.errors import panel
from kit.ui.look import block, display, escaped, root
from kit.ui.monitor.following import Follower
from kit.ui.monitor.session import Session
from kit.ui.queue_gpus import QueueGpus, words_of

PERIOD = 2.0  # seconds between two looks while something is at work
LOG = "working.txt"  # what the process prints that works the queue off
# What each state lets a person do, by the words of kit queue.
ACTIONS = {
    "waiting": ("first", "pause", "remove"),
    "started": ("show", "pause"),
    "paused": ("resume", "remove"),
    "stopped": ("show", "retry", "remove"),
    "failed": ("show", "retry", "remove"),
    "done": ("show", "remove"),
}
NAMES = {
    "show": "Show",
    "first": "To the top",
    "pause": "Pause",
    "resume": "Go on",
    "retry": "Retry",
    "remove": "Remove",
}


class QueueList:
    """The list and its buttons; what is pressed is done at once, and shown."""

    def __init__(
        self,
        queue: Queue,
        form_settings: Callable[[], Settings | None],
        *,
        close: Callable[[], None] | None = None,
        chosen_gpus: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        """form_settings: what stands in the form, or None where there is none.

        close: takes the list out of the form whose bar adds to it, and so has that button already.
        chosen_gpus: the numbers of those that are chosen in the form.
        """
        self.queue, self._form_settings = queue, form_settings
        self.add = self._button("Add what stands in the form", self._add, icon="plus")
        self.start = self._button("Start", self._start, icon="play", style="success")
        self.gpus = QueueGpus(chosen_gpus)
        self.pause = self._button("Pause", self._pause, icon="pause")
        self.refresh = self._button("Refresh", lambda: None, icon="refresh")
        self.line = block(css="kit-quiet kit-line")
        self.rows = widgets.VBox([], layout=widgets.Layout(width="100%"))
        first, last = [self.add], list[widgets.Button]()
        if close is not None:
            first, last = [], [self._button("Close", close, icon="times")]
        bar = widgets.HBox([*first, self.gpus.menu, self.start, self.pause, self.refresh, *last])
        bar.layout.flex_flow = "row wrap"
        bar.add_class("kit-bar")
        self.run = widgets.VBox([], layout=widgets.Layout(width="100%"))  # the one that is shown
        self.parts = (bar, self.line, self.rows, self.run)
        self.root = root(*self.parts)
        self._follower: Follower | None = None
        self._shown_run = 0  # its number
        self._shown: list[tuple[Entry, str]] | None = None
        self._watching: threading.Thread | None = None
        self._worker: subprocess.Popen[bytes] | None = None  # started here
        self._said_before = 0  # bytes of its log
        self._act(lambda: None)

    def _ipython_display_(self) -> None:
        """As a cell's last line it is the list."""
        display(self.root)

    def look(self) -> bool:
        """Show the queue as it is now; returns whether somebody works it off.

        Raises: KitError where it cannot be read.
        """
        lives = self._worker is not None and self._worker.poll() is None  # it may just begin
        works = lives or is_worked_off(self.queue)
        is_there = self.queue.folder.exists()
        content = changing.settle(self.queue) if is_there else Content()
        self.start.disabled = self.gpus.menu.disabled = works or not content.entries
        self.gpus.follow()
        self.pause.description = "Go on" if content.paused else "Pause"
        rows = [(entry, self._told(entry)) for entry in content.entries]
        if rows != self._shown:  # a row that is pressed just now must not be made anew for nothing
            self._shown = rows
            self.rows.children = [self._row(entry, told) for entry, told in rows]
        return works

    def _told(self, entry: Entry) -> str:
        numbers = numbers_of(self.queue.place(entry.number))
        state = f"at work{entry.on_gpus}" if entry.state == "started" else entry.state
        parts = [f"<b>{escaped(entry.name)}</b>", escaped(state)]
        if numbers.total_steps:
            parts.append(f"step {numbers.step} of {numbers.total_steps}")
        if numbers.loss is not None:
            parts.append(f"loss {numbers.loss:.4f}")
        if entry.note:
            parts.append(f"<span class='kit-problem'>{escaped(entry.note)}</span>")
        return f"{entry.number}: {', '.join(parts)}"

    def _row(self, entry: Entry, told: str) -> widgets.HBox:
        buttons = [
            self._button(NAMES[word], partial(self._do, word, entry.number), title=entry.name)
            for word in ACTIONS[entry.state]
        ]
        row = widgets.HBox([block(told), *buttons])
        row.layout.flex_flow, row.layout.align_items = "row wrap", "center"
        row.add_class("kit-queued")
        return row

    def _do(self, word: str, number: int) -> None:
        if word == "show":
            self._show(number)
        elif word == "first":
            changing.move(self.queue, number, 1)
        else:
            getattr(changing, word)(self.queue, [number])

    def _show(self, number: int) -> None:
        """The run's dashboard beneath the list, with its buttons while it is at work; or no more.

        Raises: KitError where it has told nothing yet.
        """
        if self._follower is not None:
            self._follower.end()
        self._follower, self.run.children = None, ()
        if self._shown_run == number:
            self._shown_run = 0
            return
        run_dir = run_dir_of(self.queue.place(number))
        if run_dir is None or not (run_dir / "events.jsonl").is_file():
            self._shown_run = 0
            raise KitError("This run has told nothing yet.", do="Press Show again in a moment.")
        self._shown_run, self._follower = number, Follower.of(run_dir)
        self._follower.start()
        self.run.children = (self._follower.dashboard.root,)

    def add_form(self) -> None:
        """Add what stands in the form; what is wrong is said in the list's line."""
        self._act(self._add)

    def _add(self) -> None:
        settings = self._form_settings()
        if settings is None:
            raise KitError("There is no form whose settings could be added.", do="kit.show()")
        settings = checked(settings.flat())
        new = new_of(settings.flat())
        _refuse_begun(new)
        [entry] = changing.add(self.queue, [new], folder=Path.cwd())
        told = [f"{entry.name} waits as run {entry.number}.", *unkept_tokens(settings.flat())]
        self._say(" ".join(told))

    def _pause(self) -> None:
        if self.queue.read().paused:
            changing.resume(self.queue)
            self._say("")
        else:
            changing.pause(self.queue)
            self._say("What is at work goes on, and nothing new begins.")

    def _start(self) -> None:
        """A process of its own works it off.

        Raises: KitError while this kernel trains, for both would want the GPU.
        """
        if Session.current is not None and Session.current.is_running():
            raise Session.current.refusal()
        self._say("")
        words = [sys.executable, "-m", "kit", "queue", "run", "--queue", str(self.queue.folder)]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
        try:
            with (self.queue.folder / LOG).open("ab") as log:
                self._said_before = log.tell()
                self._worker = subprocess.Popen(
                    [*words, *words_of(self.gpus.numbers)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **known_secrets(), **handed_on(), "PYTHONPATH": path},
                    start_new_session=True,
                )
        except OSError as error:
            raise OutputError(
                f"The queue cannot be started: {error.filename}: {error.strerror or error}.",
                "A process of its own works it off, and prints into that file.",
                f"Free some space, or use another folder: kit.queue(FOLDER), or {VARIABLE}.",
            ) from error
        self._say("The queue begins; it goes on if this kernel is restarted.")

    def _watch(self) -> None:
        """Look now and then as long as somebody works it off."""
        if self._watching is not None and self._watching.is_alive():
            return
        self._watching = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._follow,),
            name="kit-queue",
            daemon=True,
        )
        self._watching.start()

    def _follow(self) -> None:
        works = True
        while works:
            time.sleep(PERIOD)
            try:
                works = self.look()
            except KitError as error:
                self.line.value = panel(error)
        self._say(self._last_words())

    def _last_words(self) -> str:
        """Why the process ended that works it off, where it could not; "" otherwise."""
        if self._worker is None or self._worker.poll() in (None, 0, STOPPED):
            return ""
        try:
            with (self.queue.folder / LOG).open("rb") as file:
                file.seek(self._said_before)
                said = file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        lines = itertools.dropwhile(lambda line: not line.startswith("kit: "), said.splitlines())
        return " ".join(lines).removeprefix("kit: ")

    def _act(self, act: Callable[[], None]) -> None:
        try:
            act()
            if self.look():
                self._watch()
        except KitError as error:
            self.line.value = panel(error)

    def _say(self, text: str) -> None:
        self.line.value = escaped(text)

    def _button(
        self,
        text: str,
        act: Callable[[], None],
        *,
        icon: str = "",
        style: str = "",
        title: str = "",
    ) -> widgets.Button:
        button = widgets.Button(
            description=text,
            icon=icon,
            button_style=style,
            tooltip=f"{text} {title}".strip(),
            layout=widgets.Layout(width="auto"),
        )
        button.on_click(lambda _: self._act(act))
        return button


def _refuse_begun(new: New) -> None:
    """A run that was begun here holds its folder only once torch is loaded, and is known before."""
    session = Session.current
    if session is None or not session.is_running():
        return
    meant = folders_of(path_of(new.output_dir, "output_dir").absolute(), new.name)
    if session.run_dir.absolute() in meant:
        raise at_work_already(new.name, session.run_dir, session.where)
