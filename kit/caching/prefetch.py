"""Prefetching: values made ahead of time, in threads that end when they are told to."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Prefetcher(Generic[Key, Value]):
    """Values by key: begun in threads when they are prefetched, made on the spot otherwise.

    `make` must depend on its key alone; then who makes a value, and when, changes nothing.
    """

    def __init__(self, make: Callable[[Key], Value], *, workers: int) -> None:
        self.workers = workers
        self._make = make
        self._coming: dict[Key, Future[Value]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Begin what will be asked for soon; without workers, nothing."""
        if not self.workers:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="reading")
        for key in keys:
            if key not in self._coming:
                self._coming[key] = self._pool.submit(self._make, key)

    def take(self, key: Key) -> Value:
        """The value; raises what making it raised. It is not kept."""
        coming = self._coming.pop(key, None)
        return self._make(key) if coming is None else coming.result()

    def release_threads(self) -> None:
        """Let the threads end once all that is expected is made; new ones begin when needed."""
        if self._pool:
            self._pool.shutdown(wait=False)
            self._pool = None

    def close(self) -> None:
        """Forget what is expected, and wait until every thread has ended."""
        for coming in self._coming.values():
            coming.cancel()
        for coming in self._coming.values():
            if not coming.cancelled():
                coming.exception()  # waits; a failure that nobody took concerns nobody
        self._coming = {}
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
