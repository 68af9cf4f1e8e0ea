"""`await kit.wait()`: the cell stays busy until the run ends, and buttons work meanwhile.

Where somebody sits in front of the notebook it first waits for Train. Colab ends sessions whose
kernel is idle, and a notebook that runs without a person would end before the training does.
ipykernel 6 handles nothing while a cell awaits, so messages of widgets are taken out of its queue
here; ipykernel 7 handles them by itself.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from IPython import get_ipython

from kit.hosts import host
from kit.ui.monitor.session import Session

PERIOD = 0.05  # seconds between two looks
PATIENCE = 30 * 60  # seconds that Train is waited for, so that no rented GPU idles for hours
COMM = {"comm_open", "comm_msg", "comm_close", "comm_info_request"}
# How Colab's page calls a Python function, as an upload does, by a request to run this.
CALL = "_invoke_function"


async def until_over() -> None:
    """Wait for the run in this kernel; what `kit.wait` says of itself is what this does."""
    kernel = _Kernel(getattr(get_ipython(), "kernel", None))
    with kernel.telling_idle():
        await _until_over(Session.current, kernel)


async def _until_over(session: Session | None, kernel: _Kernel) -> None:
    if session is None or not session.is_running():
        session = await _begun_after(session, kernel)
        if session is None:
            return
        print(f"{session.dashboard.history.name} trains; this cell waits for its end.")
    elif host().name == "vscode":
        print("VS Code delivers no clicks while a cell is busy: the run goes on without this cell.")
        return
    with _hearing_interrupts(session.interrupt):
        while session.is_running():
            try:
                await asyncio.sleep(PERIOD)
                await kernel.handle_widgets()
            except asyncio.CancelledError:  # how a stop sign arrives where signals do not
                session.interrupt()
    if session.error is not None:
        raise session.error
    past = session.dashboard.history
    print(f"{past.name} is {past.state}, at step {past.step} of {past.total_steps}.")


async def _begun_after(last: Session | None, kernel: _Kernel) -> Session | None:
    """The run that Train begins; None, with a word about it, where none comes.

    last: the run that is over, if there was one.
    """
    idle = "The run is over." if last else "Nothing is running yet."
    if not kernel.is_attended or host().name == "vscode":
        print(idle)
        return None
    minutes = PATIENCE // 60
    print(f"{idle} This cell waits for Train, {minutes} minutes at most, and for the run's end.")
    given_up = threading.Event()
    deadline = time.monotonic() + PATIENCE
    with _hearing_interrupts(given_up.set):
        while Session.current is last and time.monotonic() < deadline and not given_up.is_set():
            try:
                await asyncio.sleep(PERIOD)
                await kernel.handle_widgets()
            except asyncio.CancelledError:
                given_up.set()
    if Session.current is not last:
        return Session.current
    if not given_up.is_set():
        print(f"No run was begun within {minutes} minutes. Run this cell again beside a run.")
    return None


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

    @property
    def is_attended(self) -> bool:
        """Somebody could answer a question of this cell, as no program that runs a notebook can."""
        if not hasattr(self._kernel, "get_parent"):
            return False
        content = (self._kernel.get_parent("shell") or {}).get("content") or {}
        return bool(content.get("allow_stdin"))

    @contextmanager
    def telling_idle(self) -> Iterator[None]:
        """Tell the page when a widget's message was handled, as ipykernel 7.4 does not.

        It handles such messages beside a cell that awaits, and says neither busy nor idle of them.
        The page waits for that before it sends a field's next change: a second one never came.
        """
        kernel, dispatch = self._kernel, getattr(self._kernel, "dispatch_shell", None)
        if dispatch is None or "concurrent" not in inspect.signature(dispatch).parameters:
            yield
            return
        cell = kernel.get_parent("shell")

        async def told(
            message: Any, *arguments: Any, concurrent: bool = False, **named: Any
        ) -> None:
            try:
                await dispatch(message, *arguments, concurrent=concurrent, **named)
            finally:
                if concurrent:
                    kernel._publish_status("idle", "shell", self._parent_of(message))
                    kernel._publish_status("busy", "shell", cell)  # for the cell is

        kernel.dispatch_shell = told
        try:
            yield
        finally:
            del kernel.dispatch_shell

    def _parent_of(self, message: Any) -> Any:
        """What an answer to this message names as what it is about."""
        _, frames = self._kernel.session.feed_identities(message, copy=False)
        return {"header": self._unpacked(frames[1])}  # its signature was spent when it was read

    async def handle_widgets(self) -> None:
        """Handle what widgets have sent; what else waits, such as other cells, goes on waiting."""
        if self._queue is None:
            return
        others = []
        while not self._queue.empty():
            item = self._queue.get_nowait()
            _, dispatch, arguments = item
            if not self._is_of_the_page(arguments[0]):
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

    def _is_of_the_page(self, message: Any) -> bool:
        """A widget's message, or a call of Colab's page; what cannot be read is the kernel's."""
        session = self._kernel.session
        try:
            _, frames = session.feed_identities(message, copy=False)
            kind = self._unpacked(frames[1])["msg_type"]
            if kind == "execute_request":
                content = self._unpacked(frames[4])
                return CALL in content["code"] + str(content.get("user_expressions") or "")
            return kind in COMM
        except (ValueError, IndexError, KeyError, TypeError):
            return False

    def _unpacked(self, frame: Any) -> Any:
        return self._kernel.session.unpack(getattr(frame, "bytes", frame))
