"""Checkpoints: the state to resume from, and the LoRA files, written whole or not at all.

State is kept after a whole step, as often as it costs little (below), at every LoRA file and at
the end. It holds weights, optimizer, schedule, scaler, position and loss history. Random numbers
need no state: every draw is a function of its address.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch

from kit import catalog
from kit.adapters.network import Network
from kit.errors import OutputError
from kit.events import Saved, StateKept
from kit.optim.averaging import averaged
from kit.optim.making import restore_optimizer
from kit.optim.optimization import Optimization
from kit.planning import Plan
from kit.runs.resume import STATE_FILE, keeps_states
from kit.runs.run import RunRecord, write_atomically, write_record
from kit.training.soundness import require_finite_network, require_finite_optimizer

# The share of time for keeping state; a kill then costs at most cost / SHARE seconds
SHARE = 0.03
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


class Kept(Protocol):
    """What lies in a run's state beside weights and optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; {} where an older state knows nothing of it."""
        ...


class Checkpoint:
    """Keeps, restores and saves one run."""

    def __init__(
        self,
        plan: Plan,
        network: Network,
        optimization: Optimization,
        losses: Losses,
        *,
        scaler: torch.amp.GradScaler | None,
        write_file: Callable[[Path, int, int], None],
    ) -> None:
        """write_file(path, step, epoch) writes the network as a LoRA file."""
        self.plan, self.network = plan, network
        self.optimization, self.losses = optimization, losses
        self.scaler, self.write_file = scaler, write_file
        self.path = plan.run.dir / "state" / STATE_FILE
        self.state_step = 0
        self.notices: list[str] = []
        self.also: dict[str, Kept] = {}  # what else this run must know to go on, by name
        self._start: bytes | None = None  # the state of the beginning, until one is on disk
        self._kept_at, self._cost = time.monotonic(), 0.0

    def resume(self) -> int:
        """Restore what was kept, or what `resume` names; returns the steps that are done.

        Raises: OutputError where the state cannot be read, or is of another network or optimizer.
        """
        start = self.plan.start
        if not self.plan.run.resumes and start is None:
            self._start = self._in_memory(0)
            return 0
        path = self.path if self.plan.run.resumes or start is None else start.fetched()
        state = self._read(path)
        rates = _first_rates(self.optimization)
        try:
            self._restore(state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise _misfit(path, str(error).splitlines()[0]) from error
        if self.plan.run.resumes:
            for name, keeper in self.also.items():
                keeper.load_state_dict(state.get(name) or {})
        else:  # another run's state: what befell that one is not this one's past
            self._start = self._in_memory(self.state_step)
        if rates != (own := _first_rates(self.optimization)):
            shown = ", ".join(f"{rate:g}" for rate in own)
            self.notices.append(f"the learning rates are those of the state: {shown}")
        return self.state_step

    def restore_last(self) -> int:
        """Go back to the newest state that is kept, or to the beginning; returns its step.

        Raises: OutputError where it cannot be read.
        """
        if self._start is None:
            state = self._read(self.path)
        else:
            state = torch.load(BytesIO(self._start), map_location="cpu", weights_only=True)
        self._restore(state)
        for name, keeper in self.also.items():
            keeper.load_state_dict(state.get(name) or {})
        return self.state_step

    def _in_memory(self, step: int) -> bytes:
        file = BytesIO()
        torch.save(self._captured(step), file)
        return file.getvalue()

    def _restore(self, state: dict[str, Any]) -> None:
        # Old states hold a class path, which changes when a class moves within its package.
        made = state.get("optimizer_type") or state.get("optimizer_kind")
        own = self.optimization.name
        if made and _class_name(made) != _class_name(own):
            raise ValueError(f"it was made with {made}, not with {own}")
        check_axis(state["network"], self.network.state_dict())
        self.network.load_state_dict(state["network"])
        restore_optimizer(self.optimization.optimizer, state["optimizer"])
        self.optimization.scheduler.load_state_dict(state["schedule"])
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.losses.recent.clear()
        self.losses.recent.extend(state["losses"])
        self.state_step = int(state["step"])

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
            raise OutputError(
                f"The state cannot be read: {path} ({error}).",
                "Without it the run cannot go on where it stopped.",
                f"Delete the folder {path.parent} to begin again, or restore the file.",
            ) from error
        if state["format"] != FORMAT:
            raise OutputError(
                f"The state was written by another version of LoRA Kit: {path}.",
                do=f"Delete the folder {path.parent} to begin again.",
            )
        return state

    def save_state_if_cheap(self, step: int) -> None:
        """Save state, unless that would take more than its share of the time."""
        if time.monotonic() - self._kept_at >= self._cost / SHARE:
            self.save_state(step)

    def save_state(self, step: int, *, again: bool = False) -> None:
        """Save state after a whole step; `again` where it has changed since it was saved.

        Raises: OutputError where it cannot be written; the state before it stays as it was.
        """
        if step == self.state_step and not again:
            return
        began = time.monotonic()
        with self._writing(self.path):
            self._write(self.path, step)
            self._record(step, finished=False)
        self._start = None
        self.state_step, self._kept_at = step, time.monotonic()
        self._cost = self._kept_at - began

    def _write(self, path: Path, step: int) -> None:
        """Raises: NotFinite where something of it is not; nothing is written then."""
        require_finite_network(self.network)
        require_finite_optimizer(self.optimization.optimizer)
        state = self._captured(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda part: torch.save(state, part))

    def _captured(self, step: int) -> dict[str, Any]:
        scaler = self.scaler.state_dict() if self.scaler else {}
        return {
            "format": FORMAT,
            "step": step,
            "network": self.network.state_dict(),
            "optimizer": self.optimization.optimizer.state_dict(),
            "optimizer_type": self.optimization.name,
            "schedule": self.optimization.scheduler.state_dict(),
            "scaler": scaler,
            "losses": list(self.losses.recent),
            **{name: keeper.state_dict() for name, keeper in self.also.items()},
        }

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            raise OutputError(
                f"The state could not be written to {path}: {error}",
                f"The state of step {self.state_step} is untouched, and so is every file.",
                "Free some space there, and start the same settings again to go on.",
            ) from error

    def state_beside(self, saved: Saved) -> Iterator[StateKept]:
        """Keep a state folder with a LoRA file, where that is asked for, and drop outdated ones.

        Raises: OutputError where it cannot be written.
        """
        step, run = saved.step, self.plan.run
        if not keeps_states(self.plan.settings.saving, at_end=step == self.plan.total_steps):
            return
        suffix = Path(saved.path).name.removeprefix(run.name).removesuffix(f".{run.ending}")
        folder = run.state_dir(suffix)
        with self._writing(folder):
            self._write(folder / STATE_FILE, step)
            write_record(folder, RunRecord(run.fingerprint, self.plan.seed, step))
        saving = self.plan.settings.saving
        old = self._outdated(
            step,
            self.plan.save_due(step),
            saving.save_last_n_epochs_state or saving.save_last_n_epochs,
            saving.save_last_n_steps_state or saving.save_last_n_steps,
        )
        gone = run.state_dir(old) if old else None
        removed = (str(gone),) if gone and gone.is_dir() else ()
        for path in removed:
            shutil.rmtree(path, ignore_errors=True)
        yield StateKept(step, saved.epoch, str(folder), removed)

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
        saving = self.plan.settings.saving
        kept = saving.save_last_n_epochs, saving.save_last_n_steps
        outdated = self._outdated(step, kind, *kept)
        old = self.plan.run.file(outdated) if outdated else None
        if old and old.exists():
            old.unlink()
            return Saved(saved.step, saved.epoch, saved.path, (str(old),))
        return saved

    def save(self, step: int, suffix: str) -> Saved:
        """Write the network now; suffix "" is the final file."""
        epoch = self.plan.epoch_of(step)
        path = self.plan.run.file(suffix)
        with averaged(self.optimization):
            self.write_file(path, step, epoch)
        return Saved(step, epoch, str(path))

    def _outdated(self, step: int, kind: str, epochs: int | None, steps: int | None) -> str:
        """The suffix that this save outdates where the last `epochs` or `steps` are kept.

        For steps it is the reference's rule: kept is what was saved in the last N steps (trainer
        behaviour 10.1). Empty where nothing is outdated.
        """
        saving = self.plan.settings.saving
        if kind == "epoch" and epochs:
            old = self.plan.epoch_of(step) - (saving.save_every_n_epochs or 1) * epochs
            return epoch_suffix(old) if old > 0 else ""
        if kind == "step" and steps:
            old = step - steps - 1
            old -= old % (saving.save_every_n_steps or 1)
            return step_suffix(old) if old > 0 else ""
        return ""


def _class_name(optimizer: str) -> str:
    """The class of an optimizer, by its name in the menu or by a class path of any age."""
    row = catalog.OPTIMIZERS.get(optimizer)
    return (row.code.partition(":")[2] if row else optimizer).rpartition(".")[2]


def check_axis(kept: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    """A state's DoRA has its magnitudes on our axis; older versions kept those of outputs.

    Raises: ValueError where it has not.
    """
    for name in own.keys() & kept.keys():
        if name.endswith("dora_scale") and own[name].shape != kept[name].shape:
            on_output = "true" if kept[name].shape[0] != 1 else "false"
            raise ValueError(f"its DoRA has the other axis; set wd_on_output = {on_output}")


def _first_rates(optimization: Optimization) -> list[float | None]:
    """Every group's rate, before the schedule."""
    return [group.get("initial_lr", group["lr"]) for group in optimization.optimizer.param_groups]


def _misfit(path: Path, why: str) -> OutputError:
    return OutputError(
        f"The state {path} does not fit these settings: {why}",
        "A state goes on with the base model, the LoRA type, the ranks and the optimizer that it "
        "was made with.",
        "Set them as they were in its run, or leave resume blank.",
    )


def epoch_suffix(epoch: int) -> str:
    """As kohya: `-000002`."""
    return f"-{epoch:06d}"


def step_suffix(step: int) -> str:
    """As kohya: `-step00000300`."""
    return f"-step{step:08d}"
