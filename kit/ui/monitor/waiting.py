"""`await kit.wait()`: the cell stays busy until the run ends, and buttons work meanwhile.

Colab ends sessions whose kernel is idle, and a notebook that runs without a person would end before
the training does. ipykernel 6 handles nothing while a cell awaits, so messages of widgets are taken
out of its queue here; ipykernel 7 handles them by itself.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from IPython import get_ipython

from kit.hosts import host
from kit.ui.monitor.session import Session

PERIOD = 0.05  # seconds between two looks
COMM = {"comm_open", "comm_msg", "comm_close", "comm_info_request"}


async def until_over() -> None:
    """Wait for the run in this kernel; what `kit.wait` says of itself is what this does."""
    session = Session.current
    if session is None or not session.is_running():
        print(_nothing_runs(session))
        return
    if host().name == "vscode":
        print("VS Code delivers no clicks while a cell is busy: the run goes on without this cell.")
        return
    kernel = _Kernel(getattr(get_ipython(), "kernel", None))
    with _hearing_interrupts(session.interrupt):
        while session.is_running():
            try:
                await asyncio.sleep(PERIOD)
                await kernel.handle_widgets()
            except asyncio.CancelledError:  # how a stop sign arrives where signals do not
                session.interrupt()
    if session.error is not None:
        raise session.error


def _nothing_runs(session: Session | None) -> str:
    if session is not None:
        return "The run is over."
    text = "Nothing is running yet."
    if host().name == "colab":
        text += " After pressing Train, run this cell: Colab ends sessions that look idle."
    return text


@contextmanager
def _hearing_interrupts(interrupt: Callable[[], None]) -> Iterator[None]:
    """SIGINT calls this; ipykernel's own handler would hear the first one only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heard(number: int, frame: FrameType | None) -> None:
        interrupt()

    before = signal.signal(signal.SIGINT, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Kernel:
    """The kernel's queue, where it has one that holds back widgets' messages (ipykernel 6)."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._queue = getattr(kernel, "msg_queue", None)
        if self._queue is not None:
            self._parent = kernel.get_parent("shell")
            idents = kernel._parent_ident
            self._ident = idents["shell"] if isinstance(idents, dict) else idents

    async def handle_widgets(self) -> None:
        """Handle what widgets have sent; what else waits, such as other cells, goes on waiting."""
        if self._queue is None:
            return
        others = []
        while not self._queue.empty():
            item = self._queue.get_nowait()
            _, dispatch, arguments = item
            if self._kind(arguments[0]) not in COMM:
                others.append(item)
                continue
            try:
                handled = dispatch(*arguments)
                if inspect.isawaitable(handled):
                    await handled
            finally:  # what the cell prints afterwards belongs to the cell
                self._kernel.set_parent(self._ident, self._parent)
        for item in others:
            self._queue.put_nowait(item)

    def _kind(self, message: Any) -> str:
        """The message's type; "" where it cannot be read, so that it is left to the kernel."""
        session = self._kernel.session
        try:
            _, frames = session.feed_identities(message, copy=False)
            header = frames[1]
            kind: str = session.unpack(getattr(header, "bytes", header))["msg_type"]
        except (ValueError, IndexError, KeyError, TypeError):
            return ""
        return kind
