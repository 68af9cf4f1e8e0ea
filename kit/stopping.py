"""Stop is a wish: it is read between two steps, so a step is always whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """A wish to end after this step; any thread may ask."""

    asked: bool = False

    def ask(self) -> None:
        """End after this step."""
        self.asked = True


@contextmanager
def interrupt_asks(stop: Stop) -> Iterator[None]:
    """Turn the first Ctrl-C, stop sign or SIGTERM into a wish; the second ends at once.

    Only the main thread of a process may listen to signals; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.ask()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
