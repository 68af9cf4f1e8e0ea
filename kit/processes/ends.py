"""How a process ends that is one of several: not by every signal, and not never."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kit.errors import ProcessLost, in_a_line


def lost_process(found: str) -> ProcessLost:
    """What ends the others; found: who is lost and why, without a full stop."""
    return ProcessLost(
        f"{found.rstrip('.')}.",
        "The processes train together, so all of them have ended. The state of the last whole step "
        "is kept.",
        "Put right what is said, and start the same command again: it goes on from there, on "
        "another number of processes too where gradient_accumulation_steps x processes is the "
        "same.",
    )


class OutOfStep(ProcessLost):
    """This process broke off where all go through a sharded base at once: it is the lost one."""


def out_of_step(error: BaseException) -> OutOfStep:
    """What ends this process, and the others with it; error: why it could not go on."""
    return OutOfStep(
        f"{in_a_line(error).rstrip('.')}.",
        "The base model is sharded (shard_base), so every process is needed for each layer, and "
        "all of them have ended. The state of the last whole step is kept.",
        "Put right what is said, and start the same command again: it goes on from there.",
    )


@contextmanager
def not_for_ever(seconds: float) -> Iterator[None]:
    """While processes meet they are in torch's hands, where nothing of ours is heard: an end.

    After so many seconds this process says so and is over.
    """

    def end() -> None:
        print(
            f"kit: The other processes did not come within {seconds:.0f} s. They meet at "
            f"MASTER_ADDR = {os.environ.get('MASTER_ADDR')}, MASTER_PORT = "
            f"{os.environ.get('MASTER_PORT')}: is one of them still starting, or is the port "
            "closed? A launcher finds a free one by itself: torch.distributed.run --standalone, "
            "accelerate launch --main_process_port 0.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def deaf() -> Iterator[None]:
    """Signals are for process 0 to hear, which tells the others by its orders."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def without_stacks() -> None:
    """Have torch keep its own account of each closed connection, forty lines of addresses.

    To be called before torch is imported; who has asked for it gets it all the same.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
