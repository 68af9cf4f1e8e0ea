"""Following a run of another kernel or process by its events.jsonl."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from kit.events import Failed, Finished
from kit.runs.lock import who_is_at_work_in
from kit.sinks.tail import Tail
from kit.ui.monitor.dashboard import Dashboard
from kit.ui.monitor.history import OVER
from kit.ui.monitor.remote import RemoteControl

PERIOD = 1.0  # seconds between two looks at the file
SILENT = 300.0  # seconds without an event after which that is said
LEFT = 60.0  # seconds after the training has left within which its last word may still come
LEFT_TOLD = (
    "Nobody is at work in it any more: its process ended without a word. Train with the same "
    "settings goes on from the last state that it kept."
)

GIVEN_BACK = "It ended before its first step, so nothing of it is kept."


class Follower:
    """Feeds a dashboard from the file until the run is over; a thread looks now and then."""

    def __init__(self, dashboard: Dashboard, tail: Tail) -> None:
        self.dashboard, self._tail = dashboard, tail
        self._left_at: float | None = None  # when it was seen that the training has left
        self._was_at_work = False
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._work,),
            name="kit-following",
            daemon=True,
        )

    @classmethod
    def of(cls, run_dir: Path) -> Self:
        """A dashboard of its own for a run's folder; of one that is at work with its buttons."""
        is_at_work = who_is_at_work_in(run_dir) is not None
        dashboard = Dashboard(
            control=RemoteControl(run_dir) if is_at_work else None, shows_itself=False
        )
        dashboard.run_dir = run_dir
        return cls(dashboard, Tail(run_dir / "events.jsonl"))

    def start(self) -> None:
        """Look, and go on to look where the run is not over.

        Raises: OSError where the file cannot be read.
        """
        if not self.look():
            self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.wait(PERIOD):
            try:
                is_over = self.look()
            except FileNotFoundError:  # as a run leaves it that ends before its first step
                if who_is_at_work_in(self._tail.path.parent) is None:
                    self.dashboard.break_off(GIVEN_BACK, "stopped")
                    self.dashboard.end()
                    return
            except OSError as error:  # removed, or a storage that does not answer
                self.dashboard.say(f"The run's file of events cannot be read: {error}")
                continue
            if is_over:
                return

    def look(self, *, now: Callable[[], float] = time.time) -> bool:
        """Show what is new; returns whether the run is over."""
        is_at_work = who_is_at_work_in(self._tail.path.parent) is not None  # before the look
        if self.hear():
            self._left_at = None
        is_over = self.dashboard.history.state in OVER
        if not is_over and self._has_left(is_at_work=is_at_work):
            self.dashboard.break_off(LEFT_TOLD)
            is_over = True
        if is_over:
            if self.dashboard.controls:
                self.dashboard.controls.end()
            return True
        heard = self._tail.path.stat().st_mtime
        if now() - heard > SILENT:
            minutes = (now() - heard) / 60
            self.dashboard.say(
                f"Nothing has been heard of this run for {minutes:.0f} minutes: it may be busy, or "
                "its process may have ended."
            )
        return False

    def hear(self) -> bool:
        """Show what was told since the last time; returns whether anything was."""
        events, is_anew = self._tail.new()
        if is_anew:
            self.dashboard.forget()
        self.dashboard.history.add_all(events)
        if events:
            self.dashboard.say("")
            is_over = any(isinstance(event, Finished | Failed) for event in events[-3:])
            self.dashboard.draw(whole=is_over)
        return bool(events)

    def _has_left(self, *, is_at_work: bool) -> bool:
        """It was at work, and no last word came within the time for it."""
        if is_at_work:
            self._was_at_work, self._left_at = True, None
        elif self._was_at_work:
            self._left_at = self._left_at or time.monotonic()
        return self._left_at is not None and time.monotonic() - self._left_at > LEFT
