"""The feed: batches of the next micro-steps, made in a thread while the device works.

A batch is a function of its micro-step, so it does not matter who makes it, or when. An error comes
out where the batch is taken. Only what is cached is made ahead: a VAE that encodes pictures in
every step would share the device with the step.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from kit.training.batches import Batch, BatchBuilder

AHEAD = 3  # batches; a step takes longer than a batch, so that more would only cost memory


class Feed:
    """Gives the batches of a run; ahead = 0 makes each where it is taken."""

    def __init__(
        self,
        builder: BatchBuilder,
        *,
        end: int,
        ahead: int = 0,
        pins: bool = False,
        every: int = 1,
    ) -> None:
        """end: micro-steps of the whole run; pins: into memory that a GPU reads by itself.

        every: of so many processes each takes every so manieth micro-step, as a rule.
        """
        self._builder, self._end, self._ahead, self._pins = builder, end, ahead, pins
        self._every = every
        self._lock = threading.Lock()  # a builder's caches know one reader
        self._coming: dict[int, Future[Batch]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches") if ahead else None

    def micro_batches(self, micro_steps: range) -> Iterator[Batch]:
        """The batches of a step."""
        for micro_step in micro_steps:
            yield self.batch(micro_step)
            # Behind it: the thread is not to hold Python while the device waits for this one.
            self._make_ahead(micro_step)

    def batch(self, micro_step: int) -> Batch:
        """The batch of a micro-step (from 0); once more the same, until a later one is taken."""
        made = self._coming.get(micro_step)
        if made is None:
            return self._made(micro_step)
        try:
            return made.result()
        except BaseException:
            del self._coming[micro_step]  # asked for again, it is tried again
            raise

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()

    def _make_ahead(self, taken: int) -> None:
        if self._thread is None:
            return
        end = min(taken + (1 + self._ahead) * self._every, self._end)
        soon = range(taken, end, self._every)
        for number in [n for n in self._coming if n not in soon]:  # done with, or the run went back
            self._coming.pop(number).cancel()
        for number in soon[1:]:
            if number not in self._coming:
                self._coming[number] = self._thread.submit(self._made, number)

    def _made(self, micro_step: int) -> Batch:
        with self._lock:
            batch = self._builder.batch(micro_step)
        return batch.pinned() if self._pins else batch
