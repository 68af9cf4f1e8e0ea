"""Out of memory in mid-run: a rung down the ladder of `kit.planning.ladder`, in the running step.

The batch, its pictures, noise and timesteps stay the same, and so does the mean of the gradient;
fewer images at once round it differently. Dropouts of the network (network_dropout and its like)
draw for each piece of a batch, so there the masks are others, of the same chances. Checkpointing
alone changes no bit on one device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kit.families import Family
from kit.planning.ladder import Footing
from kit.training.engine import DRAWN_TWICE, StepEngine
from kit.training.network_setup import recompute_gradients
from kit.training.step import TrainingStep


@dataclass
class Lightening:
    """On which rungs a run stands, and how it takes them. The run's state keeps them."""

    step: TrainingStep
    family: Family
    engine: StepEngine
    batch_size: int  # of the largest batch
    encoder_learns: bool
    footing: Footing

    def lower(self) -> Footing | None:
        """The next rung, which is not yet taken; None where there is none."""
        return self.footing.lower(self.batch_size)

    def stand_on(self, footing: Footing) -> None:
        """Take a rung."""
        if footing.checkpointing and not self.footing.checkpointing:
            draws = self.step.dropout_seed is not None
            recompute_gradients(self.family, text_encoders=self.encoder_learns, draws=draws)
            if draws:
                self.engine.refuse(DRAWN_TWICE)
        self.engine.reset()
        self.step.rows, self.footing = footing.rows, footing

    def state_dict(self) -> dict[str, Any]:
        """The footing."""
        return self.footing.to_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin on that footing; one that is lower already stays.

        Where the base is sharded batches are made whole: all processes make as many passes.
        """
        kept = Footing.of_state(state)
        rows = min(kept.rows or self.footing.rows, self.footing.rows or kept.rows)
        rows = 0 if self.step.is_sharded else rows
        self.stand_on(Footing(self.footing.checkpointing or kept.checkpointing, rows))
