"""A run that trains outside of this kernel, with the dashboard and the buttons of one within it.

    Elsewhere.launch(run, toml, ...) starts `kit train` as a process of its own
    Elsewhere.attach(run_dir)        one that is at work already, whoever started it

It goes on when the kernel is restarted; `attach` shows it again.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from kit.errors import KitError
from kit.launching.own_process import OwnProcess
from kit.runs.control_files import Asked
from kit.runs.lock import who_is_at_work_in
from kit.runs.run import Answer, Run
from kit.sinks.tail import Tail
from kit.ui.monitor.dashboard import Dashboard
from kit.ui.monitor.following import GIVEN_BACK, PERIOD, Follower
from kit.ui.monitor.history import OVER
from kit.ui.monitor.remote import RemoteControl
from kit.ui.monitor.session import Session

STOPPED = 3  # exit code of a training that was asked to stop


class Elsewhere(Session):
    """A run in other processes; its thread only follows what they tell."""

    ends_with_kernel = False
    where = "in processes of its own"

    def __init__(
        self,
        run_dir: Path,
        *,
        process: OwnProcess | None = None,
        pictures: int = 0,
    ) -> None:
        """process: what trains, where it was started here; pictures: that it learns from."""
        control = RemoteControl(run_dir, waits=process is not None)
        dashboard = Dashboard(control=control, shows_itself=False)
        dashboard.run_dir = run_dir
        super().__init__(dashboard, control, run_dir)
        self.remote, self._process, self.pictures = control, process, pictures
        tail = Tail(run_dir / "events.jsonl")
        self._follower = Follower(dashboard, tail)
        with suppress(OSError):
            if process is None:
                self._follower.hear()
            else:
                tail.new()  # what an earlier session told is shown already, by its plan

    @classmethod
    def launch(
        cls, run: Run, toml: str, answer: Answer = "ask", *, total_steps: int, pictures: int
    ) -> Session:
        """Start a training of these settings as a process of its own.

        run, total_steps: what was planned for it; pictures: that it learns from.
        answer: what it was told about an unfinished run.

        Raises: KitError while another run is at work, or where it cannot be started.
        """

        def made() -> Session:
            session = cls(run.dir, process=OwnProcess(toml, answer), pictures=pictures)
            session.dashboard.expect(run, total_steps)
            return session

        return cls._begun(made)

    @classmethod
    def attach(cls, run_dir: Path) -> Session:
        """Follow a run that is at work.

        Raises: KitError while another run of this kernel is.
        """
        return cls._begun(lambda: cls(run_dir))

    def interrupt(self) -> None:
        """The notebook's stop sign: the first time a request, the second time at once."""
        if not self.control.stop_requested:
            with suppress(KitError):  # it has ended meanwhile
                self.remote.ask(Asked("stop"))
            self.dashboard.tell_request()
        elif self._process is not None:
            self._process.end()
            self._process.end()

    def _iterate(self) -> None:
        while self._is_alive():
            time.sleep(PERIOD)
            self.remote.deliver()
            self._hear()
        self._hear()
        past = self.dashboard.history
        if past.state not in OVER and self._is_given_back():
            self.dashboard.break_off(GIVEN_BACK, "stopped")
        if past.state not in OVER:
            raise KitError(self._why())
        if past.state == "failed":
            raise KitError(past.failure)

    def _is_alive(self) -> bool:
        if self._process is None:
            return who_is_at_work_in(self.run_dir) is not None
        return self._process.poll() is None

    def _hear(self) -> None:
        """What is new; where there is no file yet, nothing."""
        told = self._process.run_dir() if self._process else None
        if told is not None and told != self.run_dir.absolute():  # another took the name meanwhile
            self.run_dir = self.remote.run_dir = self.dashboard.run_dir = told
            self._follower = Follower(self.dashboard, Tail(told / "events.jsonl"))
        with suppress(OSError):
            self._follower.hear()

    def _is_given_back(self) -> bool:
        """It was asked to stop before its first step, and has left nothing."""
        is_gone = not (self.run_dir / "events.jsonl").exists()
        return is_gone and (self._process is None or self._process.poll() == STOPPED)

    def _why(self) -> str:
        told = self._process.last_words() if self._process else ""
        return told or "Its process ended without a word."

    def _close(self) -> None:
        if self._process is not None:
            self._process.forget()
