"""Working the queue off: each run a process of its own, one after another or one on each GPU.

A run of several processes gets a GPU for each. Until so many are free it waits, and so does what
stands behind it: nobody knows how long a run will take, so a small one that went first could keep
the larger one waiting for as long as small ones are added.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kit.control import RunControl, stop_on_interrupt
from kit.errors import KitError, SettingsError
from kit.launching.command import ROOT, gpus_wanted
from kit.launching.gpus import VISIBLE, visible
from kit.queueing.changing import ask_to_stop, settle_in
from kit.queueing.outcome import LOG, RUN_DIR, WORKING, is_alive, settled
from kit.queueing.store import Content, Entry, Queue
from kit.runs.lock import Words, at_work_in
from kit.settings import Settings
from kit.settings.links import handed_on

PERIOD = 1.0  # seconds between two looks

Command = Callable[[Path, str], Sequence[str]]  # an entry's place and its GPUs -> the words


def train_command(place: Path, gpu: str) -> list[str]:
    """What trains one entry; with GPUs of its own it sees no other, whatever gpu_ids says."""
    words = [sys.executable, "-m", "kit", "train", str(place / "settings.toml")]
    words += ["--tell-folder", str(place / RUN_DIR)]
    return [*words, "--set", "gpu_ids="] if gpu else words


@dataclass
class Tally:
    """What came of it: the numbers of the runs that ended, by their state."""

    ended: dict[int, str] = field(default_factory=dict)
    stopped: bool = False  # a person ended the queue before it was through


class Worker:
    """Starts what waits, as long as something does."""

    def __init__(
        self,
        queue: Queue,
        *,
        gpus: Sequence[str] = (),
        tell: Callable[[str], object] = print,
        command: Command | None = None,
        control: RunControl | None = None,
    ) -> None:
        """gpus: numbers of GPUs, each for one run at a time; none means one run at a time.

        A run of several processes takes as many of them.
        """
        self.queue, self._gpus, self._tell = queue, tuple(gpus) or ("",), tell
        self._command, self._control = command or train_command, control or RunControl()
        self._starters: dict[int, subprocess.Popen[bytes]] = {}
        self._said_paused = False
        self._blocked = self._said_blocked = ""  # that the next one waits for GPUs
        self._at_work: set[int] = set()  # numbers, at the last look
        self._asked: set[int] = set()  # numbers of those that were asked to stop, once each
        self.tally = Tally()

    def work(self) -> Tally:
        """Until nothing waits and nothing is at work; a request to stop is passed on to the runs.

        They keep their state, and wait for the next time. A second Ctrl-C leaves at once; the runs
        go on by themselves.

        Raises: KitError where another one works this queue off already.
        """
        with (
            at_work_in(self.queue.folder / WORKING, _busy),
            stop_on_interrupt(self._control),
        ):
            while self._turn():
                time.sleep(PERIOD)
            for starter in self._starters.values():  # each has written how its run ended
                starter.wait()
        return self.tally

    def _turn(self) -> bool:
        """One look at everything; returns whether there is more to do."""
        stops = self._control.stop_requested
        for starter in self._starters.values():
            starter.poll()
        with self.queue.changing() as content:
            settle_in(self.queue, content)
            self._settle_broken_off(content)
            ended = [each for each in content.entries if each.number in self._at_work]
            ended = [each for each in ended if each.state != "started"]  # whoever wrote it down
            to_start, too_large = ([], []) if stops else self._chosen(content)
            to_stop = self._to_stop(content, everything=stops)
            at_work = [each for each in content.entries if each.state == "started"]
            waiting = [each for each in content.entries if each.state == "waiting"]
        self._at_work = {entry.number for entry in at_work}
        for entry in (*ended, *too_large):
            self._tell_end(entry)
        for entry in to_stop:
            self._tell(f"{entry.number} {entry.name}: asked to stop; its state is kept")
            ask_to_stop(self.queue.place(entry.number))
        for entry in to_start:
            self._start(entry)
        self._say_blocked()
        if waiting and not at_work and content.paused and not stops:
            self._say_paused(len(waiting))
        self.tally.stopped = stops
        return bool(at_work) or (bool(waiting) and not stops)

    def _settle_broken_off(self, content: Content) -> None:
        """Started ones that nobody works on, and nobody ended, wait again, or could not start."""
        for entry in [each for each in content.entries if each.state == "started"]:
            starter = self._starters.get(entry.number)
            if starter is not None and starter.poll() is None:
                continue  # it is about to hold its place
            if settled(self.queue, entry) is not None:
                continue
            if starter is None:  # an earlier session was killed, and its run as well
                content.put(replace(entry, state=entry.then or "waiting", then=""))
                continue
            note = f"it could not be started; {self.queue.place(entry.number) / LOG} tells why"
            content.put(replace(entry, state="failed", then="", note=note))

    def _wanted(self, entry: Entry) -> int:
        """How many GPUs it takes; without --gpus the run itself sees to that."""
        if self._gpus == ("",):
            return 1
        try:
            settings = Settings.load(self.queue.settings_file(entry.number))
            return gpus_wanted(settings.machine, len(self._gpus))
        except (SettingsError, ValueError):  # the run says what is wrong with them
            return 1

    def _chosen(self, content: Content) -> tuple[list[Entry], list[Entry]]:
        """What is started now, in the queue's order, and what there are not GPUs enough for."""
        chosen, too_large, self._blocked = list[Entry](), list[Entry](), ""
        waiting = [entry for entry in content.entries if entry.state == "waiting"]
        for place, entry in enumerate(waiting):
            if content.paused or not (free := self._free(content)):
                break
            wanted, there = self._wanted(entry), len(self._gpus)
            if wanted > there:
                too_large.append(replace(entry, state="failed", note=_too_few(there, wanted)))
                content.put(too_large[-1])
                continue
            if wanted > len(free):
                self._blocked = _blocked(entry, wanted, waiting[place + 1 :])
                break
            chosen.append(replace(entry, state="started", gpu=",".join(free[:wanted])))
            content.put(chosen[-1])
        return chosen, too_large

    def _free(self, content: Content) -> list[str]:
        at_work = [entry for entry in content.entries if entry.state == "started"]
        used = [gpu for entry in at_work for gpu in entry.gpus]
        free = [gpu for gpu in self._gpus if gpu not in used]
        return free[: max(0, len(self._gpus) - len(used))]  # others are of an earlier call

    def _to_stop(self, content: Content, *, everything: bool) -> list[Entry]:
        """What is at work and is to be asked now; everything: a person ends the queue."""
        at_work = [entry for entry in content.entries if entry.state == "started"]
        self._asked &= {entry.number for entry in at_work}
        chosen = []
        for entry in at_work:
            if everything and not entry.then:
                entry = replace(entry, then="waiting")
                content.put(entry)
            is_asked = entry.number in self._asked
            if entry.then and not is_asked and is_alive(self.queue.place(entry.number)):
                self._asked.add(entry.number)
                chosen.append(entry)
        return chosen

    def _start(self, entry: Entry) -> None:
        place = self.queue.place(entry.number)
        words = [sys.executable, "-m", "kit.queueing.starting", str(place), entry.folder]
        try:
            with (place / LOG).open("ab") as log:
                self._starters[entry.number] = subprocess.Popen(
                    [*words, *self._command(place, entry.gpu)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=place,
                    env=_environment(entry.gpu),
                    start_new_session=True,  # neither Ctrl-C nor a closed terminal is for it
                )
        except OSError as error:  # its folder was deleted, say: the next one begins all the same
            note = f"it could not be started: {error.filename or place}: {error.strerror or error}"
            failed = replace(entry, state="failed", then="", note=note)
            with self.queue.changing() as content:
                content.put(failed)
            self._at_work.discard(entry.number)
            self._tell_end(failed)
            return
        prints = f"it prints into {place / LOG}"
        self._tell(f"{entry.number} {entry.name}: begins{entry.on_gpus}; {prints}")

    def _tell_end(self, entry: Entry) -> None:
        self.tally.ended[entry.number] = entry.state
        note = f": {entry.note}" if entry.note else ""
        self._tell(f"{entry.number} {entry.name}: {entry.state}{note}")

    def _say_blocked(self) -> None:
        if self._blocked and self._blocked != self._said_blocked:
            self._said_blocked = self._blocked
            self._tell(self._blocked)

    def _say_paused(self, waiting: int) -> None:
        if not self._said_paused:
            self._said_paused = True
            self._tell(f"The queue is paused, and {waiting} wait: kit queue resume lets it go on.")


def _environment(gpu: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    variables = {**os.environ, **handed_on(), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    return {**variables, VISIBLE: ",".join(map(visible, gpu.split(",")))} if gpu else variables


def _too_few(there: int, wanted: int) -> str:
    return (
        f"it asks for {wanted} GPUs of this machine (num_processes), and the queue works with "
        f"{there}: set num_processes = {there}, or give the queue more with kit queue run --gpus"
    )


def _blocked(entry: Entry, wanted: int, behind: Sequence[Entry]) -> str:
    text = f"{entry.number} {entry.name}: waits until {wanted} GPUs are free"
    if behind:
        text += "; what stands behind it waits, too, so that its turn comes (kit queue move "
        text += f"{behind[0].number} 1 lets a run go first)"
    return text


def _busy(folder: Path, holder: Words) -> KitError:
    return KitError(
        f"The queue in {folder.parent} is being worked off already (process "
        f"{holder.get('pid', '?')}).",
        "What is added to it begins there in its turn.",
        "kit queue shows the list; end the other one with Ctrl-C to begin with other GPUs.",
    )
