"""Listeners that may have to wait for a network do so in a thread of their own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeAlias

from kit.errors import in_a_line
from kit.events import Event, Failed, Finished, Noticed

Sink: TypeAlias = Callable[[Event], Iterable[Noticed] | None]
ENDS = (Failed, Finished)
PATIENCE = 120.0  # seconds that the end of a run waits for what is still on its way


def muted(sink: object, error: BaseException) -> Noticed:
    """The one notice about a listener that broke."""
    name = getattr(sink, "__name__", type(sink).__name__)
    return Noticed(f"{name} failed and is muted; the run goes on: {in_a_line(error)}")


class Background:
    """A listener that hears in a thread of its own: whoever tells it never waits for it.

    What it notices is told with a later event. At the end of a run it is waited for, but not
    longer than `patience` seconds. The thread ends with the process, whatever it is doing.
    """

    def __init__(self, sink: Sink, *, patience: float = PATIENCE) -> None:
        self.sink, self.patience = sink, patience
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._notices: queue.SimpleQueue[Noticed] = queue.SimpleQueue()
        self._through = threading.Event()
        self._thread: threading.Thread | None = None
        self._leaves = False

    def __call__(self, event: Event) -> list[Noticed]:
        """Pass the event on; returns what has been noticed since the last one."""
        if self._leaves:
            return self._told()
        if self._thread is None:
            name = f"kit-{type(self.sink).__name__}"
            self._thread = threading.Thread(target=self._listen, name=name, daemon=True)
            self._thread.start()
        self._events.put(event)
        if isinstance(event, ENDS) and not self._through.wait(self.patience):
            self._leaves = True
            name, left = type(self.sink).__name__, getattr(self.sink, "left", "")
            told = f"{name} is still not through after {self.patience:g} s; it is left behind"
            self._notices.put(Noticed(f"{told}: {left}" if left else told))
        return self._told()

    def close(self) -> None:
        """Let what is on its way arrive, as long as there is patience; what waits is dropped."""
        if self._thread is None:
            return
        self._leaves = True
        self._events.put(None)
        if not self._through.is_set():
            self._thread.join(self.patience / 4)

    def _listen(self) -> None:
        try:
            while (event := self._events.get()) is not None:
                for notice in self.sink(event) or ():
                    self._notices.put(notice)
                if self._leaves or isinstance(event, ENDS):
                    break
        except Exception as error:  # whatever it is, a listener must not end the run
            self._notices.put(muted(self.sink, error))
            self._leaves = True
        finally:
            self._through.set()

    def _told(self) -> list[Noticed]:
        told: list[Noticed] = []
        while not self._notices.empty():
            told.append(self._notices.get())
        return told
