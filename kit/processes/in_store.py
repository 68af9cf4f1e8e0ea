"""Signs of life in the store by which the processes have met: machines need no folder in common.

lora-kit/0/sign/1    what else stands in ranks/1.json
lora-kit/0/over      process 0 has said that it is over

The store lies on the machine of process 0, and may go with it: a call then raises, or does not come
back. So a thread alone talks to it, over a connection of its own (another one's would be locked
meanwhile), once a second or when it is asked to; who wants to know is told what it last found.
Needs no torch: whoever has one gives the way to a store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from kit.processes.signs import Sign, sign_from

PERIOD = 1.0  # seconds between two exchanges
AT_ONCE = 2.0  # seconds that last words may take
LOOK = 2.0  # seconds that count between two looks: longer ones, and we stood still ourselves


class Store(Protocol):
    """What is needed of torch's."""

    def set(self, key: str, value: str) -> object:
        """Leave a text there."""

    def get(self, key: str) -> bytes:
        """What stands there; waits for it where nothing does."""

    def check(self, keys: list[str]) -> bool:
        """All of them stand there."""


class InStore:
    """A place for signs: see `kit.processes.places`.

    connect: makes a connection of its own, or raises as torch does. start: which start of the same
    launch it is, as a launcher counts that begins anew.
    """

    def __init__(
        self, connect: Callable[[], Store], others: Iterable[int], *, start: str = "0"
    ) -> None:
        self._connect, self._others, self._prefix = connect, tuple(others), f"lora-kit/{start}"
        self.is_over = False  # as process 0 has said
        self._own: Sign | None = None
        self._says_over = False
        self._found: dict[int, Sign] = {}
        self._turn = threading.Condition()
        self._asked = self._begun = self._tried = 0  # numbers of exchanges
        self._done_at = self._looked = time.monotonic()
        self._looked_at = (0.0, 0.0)  # which exchange was the last one then; seconds since
        self._ends = False
        self._thread = threading.Thread(target=self._live, name="signs in the store", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ what the process asks

    def put(self, sign: Sign, *, at_once: bool = False) -> None:
        """Leave our own, with the next exchange; at_once: that is now, and waited for."""
        self._own = sign
        if at_once:
            self.renew(AT_ONCE)

    def found(self, rank: int) -> Sign | None:
        """The last one of a process."""
        return self._found.get(rank)

    def seen_at(self) -> float:
        """When the last exchange was done; or later, where we have waited for the next since.

        A store that answers no more makes all signs in it old. The time in which this process
        itself stood still, its thread with it, makes none.
        """
        now, done_at = time.monotonic(), self._done_at
        of, waited = self._looked_at
        waited = waited + min(now - self._looked, LOOK) if of == done_at else 0.0
        self._looked, self._looked_at = now, (done_at, waited)
        return min(now, done_at + waited)

    def renew(self, seconds: float) -> None:
        """Exchange now, and wait so long for it at most, be it in vain."""
        with self._turn:
            mine = self._asked = self._begun + 1
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._tried >= mine, seconds)

    def say_over(self) -> None:
        """Process 0 tells the others that it is over."""
        self._says_over = True
        self.renew(AT_ONCE)

    def stop(self) -> None:
        """No further exchange; one that does not come back is left alone."""
        with self._turn:
            self._ends = True
            self._turn.notify_all()
        self._thread.join(AT_ONCE)

    # ------------------------------------------------------------------ what the thread does

    def _live(self) -> None:
        store: Store | None = None
        while self._is_next():
            try:
                store = self._exchanged(store)
                self._done_at = time.monotonic()
            except Exception:  # whatever it is: without a store there are files still
                store = None  # it may be back by the next time
            with self._turn:
                self._tried = self._begun
                self._turn.notify_all()

    def _is_next(self) -> bool:
        """Wait for the time of the next exchange; whether there is one."""
        with self._turn:
            self._turn.wait_for(lambda: self._ends or self._asked > self._begun, PERIOD)
            self._begun += 1
            return not self._ends

    def _exchanged(self, store: Store | None) -> Store:
        """Exchange over this connection; over a new one where there is none, or it is broken."""
        if store is not None:
            with suppress(Exception):
                self._exchange(store)
                return store
        store = self._connect()
        self._exchange(store)
        return store

    def _exchange(self, store: Store) -> None:
        if (own := self._own) is not None:
            store.set(self._key(own.rank), own.to_text())
        if self._says_over:
            store.set(f"{self._prefix}/over", "1")
        found = dict(self._found)
        for rank in self._others:
            key = self._key(rank)
            if (rank in found or store.check([key])) and (sign := sign_from(store.get(key), key)):
                found[rank] = sign
        self._found = found
        self.is_over = self.is_over or store.check([f"{self._prefix}/over"])

    def _key(self, rank: int) -> str:
        return f"{self._prefix}/sign/{rank}"
