"""Work that a click starts and the kernel does not wait for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable


def in_thread(job: Callable[[], None], name: str) -> threading.Thread:
    """Start a thread that may change widgets: with the caller's context, as ipykernel 7.0 asks."""
    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(job,), name=name, daemon=True)
    thread.start()
    return thread


def back_here() -> Callable[[Callable[[], None]], object]:
    """How a thread hands a job to the event loop that runs now; where none runs, it does it itself.

    For what reads and changes much, such as the form: that is done in one thread only.
    """
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        return lambda job: job()
