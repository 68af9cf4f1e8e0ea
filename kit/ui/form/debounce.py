"""Something worth doing once after a burst of key strokes, not at each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SECONDS = 0.25


class Soon:
    """Call it as often as you like; the job is done once, a moment after the last call.

    It waits in the kernel's own event loop, so no thread is needed. Where no loop runs, as in a
    script or a test, the job is done at once.
    """

    def __init__(self, job: Callable[[], None]) -> None:
        self._job = job
        self._waiting: asyncio.TimerHandle | None = None

    def __call__(self) -> None:
        """Ask for the job."""
        self.forget()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._job()
            return
        self._waiting = loop.call_later(SECONDS, self.finish)

    def finish(self) -> None:
        """Do the job now, if it was asked for and is still to be done."""
        if self._waiting is not None:
            self.forget()
            self._job()

    def forget(self) -> None:
        """The job need not be done any more."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
