"""How a micro-batch's gradient is made: call by call, or as a CUDA graph that is replayed.

The loop does not know which. Both give the same losses and gradients: the same kernels run, in the
same order, on the same numbers. The graph saves the host's work, which on an H100 is six sevenths
of a step (197 ms, of which the GPU works 32; as one graph 32: see kit/LOG.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from kit.devices import free_memory, ran_out_of_memory
from kit.training.batches import Batch
from kit.training.step import TrainingStep

# With checkpointing a dropout is drawn on the way forward and again on the way back.
DRAWN_TWICE = (
    "with gradient_checkpointing dropouts are drawn twice, and a recorded step cannot set the "
    "random numbers back in between"
)


class StepEngine(Protocol):
    """Makes gradients of a TrainingStep."""

    @property
    def name(self) -> str:
        """What steps are made with, "graph" or "eager"; the former as long as it can be."""
        ...

    @property
    def is_settled(self) -> bool:
        """It will stay with that, as far as can be known."""
        ...

    def replays(self, batch: Batch, count: float) -> bool:
        """This gradient is only queued: nothing is recorded, compared or told with it."""
        ...

    def gradient(self, batch: Batch, count: float) -> Tensor:
        """Add the gradient of a batch's mean loss over `count`; returns each image's loss, B.

        The batch lies on the CPU. The losses are the caller's, and stay on the device.
        """
        ...

    def reset(self) -> None:
        """What learns, or how it is computed, is another from now on."""
        ...

    def refuse(self, reason: str) -> None:
        """No graphs from now on; the reason is told where there were to be some."""
        ...

    def take_notices(self) -> list[str]:
        """What is to be told since the last time."""
        ...


@dataclass
class EagerEngine:
    """Call by call."""

    step: TrainingStep
    notices: list[str] = field(default_factory=list)
    name: str = "eager"
    is_settled: bool = True

    def replays(self, batch: Batch, count: float) -> bool:
        """It never does."""
        return False

    def gradient(self, batch: Batch, count: float) -> Tensor:
        """See StepEngine."""
        return self.step.gradient(batch, count)

    def reset(self) -> None:
        """Nothing is kept."""

    def refuse(self, reason: str) -> None:
        """There are none."""

    def take_notices(self) -> list[str]:
        """See StepEngine."""
        told, self.notices = self.notices, []
        return told


@dataclass
class EngineUsed:
    """Which engine a run's steps were made with: its state keeps it, so that a change is told."""

    engine: StepEngine
    before: str = ""  # that of the state which the run goes on from

    def take_notices(self) -> list[str]:
        """The change, once it is known that there is one."""
        before, now = self.before, self.engine.name
        if not before or not self.engine.is_settled:
            return []
        self.before = ""
        if before == now:
            return []
        return [
            f"until here the steps of this run were made with step_engine = {before}, now with "
            f"{now}; they may be rounded differently"
        ]

    def state_dict(self) -> dict[str, Any]:
        """The engine's name."""
        return {"name": self.engine.name}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """A state of an older version was made call by call."""
        self.before = str(state.get("name", "eager"))


def make_room(engine: StepEngine, error: BaseException, why: str) -> None:
    """Something beside the steps could not be done: give back what it may have lacked."""
    if ran_out_of_memory(error):
        engine.refuse(why)
    free_memory()
