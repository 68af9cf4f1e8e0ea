"""Following a run of another kernel or process by its events.jsonl."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable

from kit.events import Failed, Finished
from kit.sinks.tail import Tail
from kit.ui.monitor.dashboard import Dashboard
from kit.ui.monitor.history import OVER

PERIOD = 1.0  # seconds between two looks at the file
SILENT = 300.0  # seconds without an event after which that is said


class Follower:
    """Feeds a dashboard from the file until the run is over; a thread looks now and then."""

    def __init__(self, dashboard: Dashboard, tail: Tail) -> None:
        self.dashboard, self._tail = dashboard, tail
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._work,),
            name="kit-following",
            daemon=True,
        )

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.wait(PERIOD):
            try:
                is_over = self.look()
            except OSError as error:  # removed, or a storage that does not answer
                self.dashboard.say(f"The run's file of events cannot be read: {error}")
                continue
            if is_over:
                return

    def look(self, *, now: Callable[[], float] = time.time) -> bool:
        """Show what is new; returns whether the run is over."""
        events, is_anew = self._tail.new()
        if is_anew:
            self.dashboard.forget()
        self.dashboard.history.add_all(events)
        if events:
            self.dashboard.say("")
            is_over = any(isinstance(event, Finished | Failed) for event in events[-3:])
            self.dashboard.draw(whole=is_over)
        heard = self._tail.path.stat().st_mtime
        if self.dashboard.history.state not in OVER and now() - heard > SILENT:
            minutes = (now() - heard) / 60
            self.dashboard.say(
                f"Nothing has been heard of this run for {minutes:.0f} minutes: it may be busy, or "
                "its process may have ended."
            )
        return self.dashboard.history.state in OVER
