"""What is needed to go on, and the LoRA files: written whole or not at all.

State is kept after a whole step, as often as it costs little (below), at every LoRA file and at
the end. It holds weights, optimizer, schedule, scaler, position and loss history. Random numbers
need no state: every draw is a function of its address.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kit.adapters.network import Network
from kit.errors import OutputError
from kit.events import Saved
from kit.optim import Learning
from kit.planning import Plan
from kit.runs import RunRecord, write_atomically, write_record

SHARE = (
    0.03  # of the time may go into keeping state; a kill then costs at most cost / SHARE seconds
)
FORMAT = 1


@dataclass
class Losses:
    """The losses of about one epoch of batches, as the progress shows them."""

    window: int
    recent: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with none."""
        self.recent = deque(maxlen=max(1, self.window))

    def add(self, losses: Iterable[float]) -> None:
        """Take the losses of a step's batches."""
        self.recent.extend(losses)

    @property
    def average(self) -> float:
        """Mean over the window."""
        return sum(self.recent) / max(1, len(self.recent))


class Checkpoint:
    """Keeps, restores and saves one run."""

    def __init__(
        self,
        plan: Plan,
        network: Network,
        learning: Learning,
        losses: Losses,
        *,
        scaler: torch.amp.GradScaler | None,
        write_file: Callable[[Path, int, int], None],
    ) -> None:
        """write_file(path, step, epoch) writes the network as a LoRA file."""
        self.plan, self.network, self.learning, self.losses = plan, network, learning, losses
        self.scaler, self.write_file = scaler, write_file
        self.path = plan.run.dir / "state" / "state.pt"
        self.kept_step = 0
        self._kept_at, self._cost = time.monotonic(), 0.0

    def resume(self) -> int:
        """Restore what was kept; returns the steps that are done, 0 for a new run.

        Raises: OutputError where the state cannot be read.
        """
        if not self.plan.run.resumes:
            return 0
        state = self._read()
        self.network.load_state_dict(state["network"])
        self.learning.optimizer.load_state_dict(state["optimizer"])
        self.learning.schedule.load_state_dict(state["schedule"])
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.losses.recent.extend(state["losses"])
        self.kept_step = int(state["step"])
        return self.kept_step

    def _read(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            raise OutputError(
                f"The state of this run cannot be read: {self.path} ({error}).",
                "Without it the run cannot go on where it stopped.",
                f"Delete the folder {self.plan.run.dir} to begin again, or restore the file.",
            ) from error
        if state["format"] != FORMAT:
            raise OutputError(
                f"The state of this run was written by another version of LoRA Kit: {self.path}.",
                do=f"Delete the folder {self.plan.run.dir} to begin again.",
            )
        return state

    def keep_if_cheap(self, step: int) -> None:
        """Keep state, unless that would take more than its share of the time."""
        if time.monotonic() - self._kept_at >= self._cost / SHARE:
            self.keep(step)

    def keep(self, step: int) -> None:
        """Keep state after a whole step.

        Raises: OutputError where it cannot be written; the state before it stays as it was.
        """
        if step == self.kept_step:
            return
        began = time.monotonic()
        scaler = self.scaler.state_dict() if self.scaler else {}
        state = {
            "format": FORMAT,
            "step": step,
            "network": self.network.state_dict(),
            "optimizer": self.learning.optimizer.state_dict(),
            "schedule": self.learning.schedule.state_dict(),
            "scaler": scaler,
            "losses": list(self.losses.recent),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, lambda part: torch.save(state, part))
            self._record(step, finished=False)
        except (OSError, RuntimeError) as error:
            raise OutputError(
                f"The state could not be written to {self.path}: {error}",
                f"The state of step {self.kept_step} is untouched, and so is every file.",
                "Free some space there, and start the same settings again to go on.",
            ) from error
        self.kept_step, self._kept_at = step, time.monotonic()
        self._cost = self._kept_at - began

    def finish(self, step: int) -> None:
        """The run is done: its state is no longer needed."""
        self._record(step, finished=True)
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def _record(self, step: int, *, finished: bool) -> None:
        run = self.plan.run
        write_record(run.dir, RunRecord(run.fingerprint, self.plan.seed, step, finished))

    def save_due(self, step: int) -> Saved | None:
        """Write the epoch's or the step's LoRA file if one is due, and remove those it replaces."""
        kind = self.plan.save_due(step)
        if not kind:
            return None
        epoch = self.plan.epoch_of(step)
        suffix = epoch_suffix(epoch) if kind == "epoch" else step_suffix(step)
        saved = self.save(step, suffix)
        old = self._outdated_epoch(epoch) if kind == "epoch" else self._outdated_step(step)
        if old and old.exists():
            old.unlink()
            return Saved(saved.step, saved.epoch, saved.path, (str(old),))
        return saved

    def save(self, step: int, suffix: str) -> Saved:
        """Write the network now; suffix "" is the final file."""
        epoch = self.plan.epoch_of(step)
        path = self.plan.run.file(suffix)
        self.write_file(path, step, epoch)
        return Saved(step, epoch, str(path))

    def _outdated_epoch(self, epoch: int) -> Path | None:
        saving = self.plan.settings.saving
        if not saving.save_last_n_epochs:
            return None
        old = epoch - (saving.save_every_n_epochs or 1) * saving.save_last_n_epochs
        return self.plan.run.file(epoch_suffix(old)) if old > 0 else None

    def _outdated_step(self, step: int) -> Path | None:
        """The reference's rule: kept are the files of the last N steps (trainer behaviour 10.1)."""
        saving = self.plan.settings.saving
        if not saving.save_last_n_steps:
            return None
        old = step - saving.save_last_n_steps - 1
        old -= old % (saving.save_every_n_steps or 1)
        return self.plan.run.file(step_suffix(old)) if old > 0 else None


def epoch_suffix(epoch: int) -> str:
    """As kohya: `-000002`."""
    return f"-{epoch:06d}"


def step_suffix(step: int) -> str:
    """As kohya: `-step00000300`."""
    return f"-step{step:08d}"
