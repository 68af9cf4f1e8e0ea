"""Requests of a person while it trains, read between two steps: a step is whole."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from kit.settings.prompts import Prompt


@dataclass(frozen=True)
class SampleRequest:
    """Draw the run's prompts now, or this one."""

    prompt: Prompt | None = None


@dataclass(frozen=True)
class SaveRequest:
    """Write the LoRA as it is now."""


@dataclass(frozen=True)
class LrRequest:
    """Change the learning rate of a group of weights; an empty name means all of them.

    factor: multiplies what the group learns at now. rate: takes the place of the group's learning
    rate in the settings. One of the two is given; the schedule's shape stays.
    """

    group: str = ""
    factor: float | None = None
    rate: float | None = None


@dataclass(frozen=True)
class UnreadRequest:
    """Something was asked that cannot be understood; `text` says what, as an answer."""

    text: str


Request = SampleRequest | SaveRequest | LrRequest | UnreadRequest


def parse_rate(text: str, group: str = "") -> LrRequest:
    """`x0.5` multiplies the rate, `5e-5` takes the place of the one in the settings.

    Raises: ValueError with what is possible.
    """
    plain = text.strip().lower()
    is_factor = plain[:1] in ("x", "*")
    try:
        number = float(plain[1:] if is_factor else plain)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and 0 <= number <= 1000):
        raise ValueError(f"{text.strip() or 'nothing'!r} is no rate: write e.g. 5e-5, or x0.5")
    return LrRequest(group, factor=number) if is_factor else LrRequest(group, rate=number)


class RunControl:
    """The requests of a run, from whatever thread; the training reads them between two steps."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Request] = []
        self._stop = self._pause = False
        self._elsewhere: list[Callable[[RunControl], None]] = []

    @property
    def stop_requested(self) -> bool:
        """End after this step."""
        return self._stop

    @property
    def pause_requested(self) -> bool:
        """Rest after this step, until asked to go on or to stop."""
        return self._pause and not self._stop

    @property
    def is_asked(self) -> bool:
        """Anything is requested, and not taken yet."""
        return bool(self._stop or self._pause or self._waiting)

    def stop(self) -> None:
        """End after this step."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()

    def pause(self) -> None:
        """Rest after this step."""
        with self._changed:
            self._pause = True

    def go_on(self) -> None:
        """End the rest."""
        with self._changed:
            self._pause = False
            self._changed.notify_all()

    def request(self, request: Request) -> None:
        """Ask for something after this step, or now while it rests."""
        with self._changed:
            self._waiting.append(request)
            self._changed.notify_all()

    def take(self) -> list[Request]:
        """The requests since the last time, in their order."""
        with self._changed:
            taken, self._waiting = self._waiting, []
        return taken

    def listen(self) -> None:
        """Take in what was asked outside this process since the last time: between two steps."""
        for take_in in tuple(self._elsewhere):
            take_in(self)

    @contextmanager
    def listening_to(self, take_in: Callable[[RunControl], None]) -> Iterator[None]:
        """Meanwhile, `listen` calls this: it may ask whatever a person can."""
        self._elsewhere.append(take_in)
        try:
            yield
        finally:
            self._elsewhere.remove(take_in)

    def wait_while_paused(self) -> None:
        """Sleep while a pause is asked for and nothing else is."""
        while True:
            self.listen()
            with self._changed:
                if not self.pause_requested or self._waiting:
                    return
                # Not without an end: in the main thread only a sleep that ends hears Ctrl-C.
                self._changed.wait(0.2)


@contextmanager
def stop_on_interrupt(control: RunControl) -> Iterator[None]:
    """Turn the first Ctrl-C, stop sign, SIGTERM or SIGHUP into a request to stop.

    The second ends at once. SIGHUP comes where a terminal is closed or a connection is lost; what
    the process was told to ignore, as nohup tells it, stays ignored.

    Only the main thread of a process may listen to signals; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if control.stop_requested:
            raise KeyboardInterrupt
        control.stop()  # the code interrupted here may hold the lock: it is one for re-entry

    names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
