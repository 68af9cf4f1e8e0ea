"""The next step's gradient, begun before the step that is done is told.

A GPU works by itself, but does nothing while the host writes events, draws the progress and looks
for requests: 1 to 3 ms beside a step of 15 to 60. So the gradient that comes next is queued first,
and waits, with its losses, until its step is made: it is read, judged and moves the weights then,
after all that was done in between, as if it had been made there.

    n moved    gradient n+1 queued    n told, requests answered    n+1 read, judged, moved

That changes no bit: a batch, its noise and its dropouts are a function of the step alone. Whatever
else is to be done drops it; `TrainingStep.forgotten` says whether somebody has done so unasked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kit.devices import free_memory, ran_out_of_memory
from kit.training.batches import Batch
from kit.training.engine import StepEngine
from kit.training.feed import Feed
from kit.training.shared_gradient import Seen
from kit.training.step import TrainingStep, gathered


@dataclass(frozen=True)
class Begun:
    """A gradient that lies where the optimizer looks for it; nobody has read what it came to."""

    step: int
    seen: list[Seen]
    at: float  # by time.monotonic(), when it was begun
    forgotten: int  # TrainingStep.forgotten, as long as it lies there


class Ahead:
    """Holds the gradient of one step, or none."""

    def __init__(
        self,
        step: TrainingStep,
        engine: StepEngine,
        feed: Feed,
        micro_steps: Callable[[int], range],
    ) -> None:
        """micro_steps: those of a step."""
        self._step, self._engine, self._feed = step, engine, feed
        self._micro_steps = micro_steps
        self._begun: Begun | None = None

    def begin(self, step: int) -> None:
        """Queue the gradient of this step, where that takes a moment.

        What goes wrong is met again, and told, when the step is made; Ctrl-C ends the run.
        """
        if not can_begin(self._step, self._engine):
            return
        at, micro_steps = time.monotonic(), self._micro_steps(step)
        try:
            seen = gathered(
                self._step,
                self._replayed(micro_steps),
                count=len(micro_steps),
                gradient=self._engine.gradient,
            )
        except Exception as error:
            lacks_memory = ran_out_of_memory(error)
        else:
            self._begun = Begun(step, seen, at, self._step.forgotten)
            return
        # Behind the block, where the error no longer holds on to the step's tensors.
        self._step.forget()
        if lacks_memory:
            free_memory()

    def taken(self, step: int) -> Begun | None:
        """The gradient of this step, if it was begun and lies there still: the taker's from now on.

        Of another step it is dropped.
        """
        begun = self._begun
        if begun is None or begun.step != step or begun.forgotten != self._step.forgotten:
            self.drop()
            return None
        self._begun = None
        return begun

    def drop(self) -> None:
        """Forget it, once the device is through with it; where the step is made it is made anew."""
        begun, self._begun = self._begun, None
        if begun is None or begun.forgotten != self._step.forgotten:
            return
        begun.seen[-1].loss_B.tolist()  # waits: nobody is to free what a replay still writes to
        self._step.forget()

    def _replayed(self, micro_steps: range) -> Iterator[Batch]:
        """The batches of a step.

        Raises: _NotReplayed at the first that would be called, recorded or compared.
        """
        for batch in self._feed.micro_batches(micro_steps):
            for piece in self._step.pieces(batch, len(micro_steps)):
                if not self._engine.replays(*piece):
                    raise _NotReplayed
            yield batch


class _NotReplayed(Exception):
    """A gradient that is to be made at its own time."""


def can_begin(step: TrainingStep, engine: StepEngine) -> bool:
    """Whether gradients are begun ahead at all: replays, which only a GPU has, of one process.

    Called steps would keep the host for longer than what they overtake; a CPU has nothing to spare.
    Several processes begin a step at an order, which tells them what stands between two.
    """
    return step.shared is None and engine.name == "graph" and engine.is_settled
