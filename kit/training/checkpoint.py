"""Checkpoints: the state to resume from, and the LoRA files, written whole or not at all.

State is kept after a whole step, as often as it costs little (below), at every LoRA file and at
the end. It holds weights, optimizer, schedule, scaler, position and loss history. Random numbers
need no state: every draw is a function of its address.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from kit.adapters.network import Network
from kit.errors import OutputError
from kit.events import Saved, StateKept
from kit.optim.averaging import averaged
from kit.optim.making import class_name, restore_optimizer
from kit.optim.optimization import Optimization
from kit.planning import Plan
from kit.runs.atomic_write import write_atomically
from kit.runs.disk import why_unwritten
from kit.runs.record import RunRecord, read_record, write_record
from kit.runs.resume import keeps_states
from kit.runs.state_files import STATE_FILE, before, damage, make_newest, replace_state
from kit.training.kept import Kept, Losses
from kit.training.orders import Order
from kit.training.ranks import Ranks
from kit.training.soundness import require_finite_network, require_finite_optimizer
from kit.training.state_file import Damaged, apart, bytes_of, optimizer_of, read_state, write_state
from kit.training.state_fit import check_axis, check_rates, lost, misfit, unreadable

# The share of time for keeping state; a kill then costs at most cost / SHARE seconds
SHARE = 0.03
ODD = (AttributeError, OverflowError)  # values that are whole, and no state of ours


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
        self.path = plan.run.own_state / STATE_FILE
        self.state_step = 0
        self.owed: tuple[str, ...] = ()  # of the newest whole step: see RunRecord
        self.notices: list[str] = []
        self.also: dict[str, Kept] = {}  # what else this run must know to go on, by name
        self.writing: Callable[[], AbstractContextManager[None]] = nullcontext  # a LoRA file
        self._start: bytes | None = None  # the state of the beginning, until one is on disk
        self._recorded: tuple[str, ...] = ()
        self._is_finished = False
        self._kept_at, self._cost = time.monotonic(), 0.0

    def resume(self) -> int:
        """Restore what was kept, or what `resume` names; returns the steps that are done.

        Raises: OutputError where the state cannot be read, or is of another network or optimizer.
        """
        start = self.plan.start
        if not self.plan.run.resumes and start is None:
            self._start = self.in_memory(0)
            return 0
        rates = _first_rates(self.optimization)
        if self.plan.run.resumes or start is None:
            self.go_back()
        else:  # another run's state: what befell that one is not this one's past
            self._restore_newest(start.fetched(), start.step, own=False)
            self._start = self.in_memory(self.state_step)
        if rates != (own := _first_rates(self.optimization)):
            shown = ", ".join(f"{rate:g}" for rate in own)
            self.notices.append(f"the learning rates are those of the state: {shown}")
        return self.state_step

    def restore_last(self, *, further: bool = False) -> int:
        """Go back to the newest state that is kept, or to the beginning; returns its step.

        further: to the one before the newest, which is given up, where there is a whole one.

        Raises: OutputError where none can be read.
        """
        if self._start is None:
            if further and not damage(earlier := before(self.path)):
                with self._writing(self.path):
                    make_newest(earlier)
            return self.go_back()
        self.take_over(self._start)
        self.owed = self._recorded = ()
        return self.state_step

    def in_memory(self, step: int) -> bytes:
        """The state as it is now, which no file holds; `take_over` reads it."""
        file = BytesIO()
        torch.save(self._state(step), file)
        return file.getvalue()

    def take_over(self, state: bytes) -> None:
        """Go on from what `in_memory` gave, here or in another process of this run."""
        kept = torch.load(BytesIO(state), map_location="cpu", weights_only=True)
        self._restore(kept)
        for name, keeper in self.also.items():
            keeper.load_state_dict(kept[name])

    def go_back(self) -> int:
        """Restore the run's last good state, at its start or in mid-run; returns its step.

        Raises: OutputError where none can be read, or is of another network or optimizer.
        """
        record = read_record(self.plan.run.dir)
        path = self._restore_newest(self.path, record.step if record else 0, own=True)
        with self._writing(self.path):
            make_newest(path)
        if record and record.step == self.state_step:
            self.owed = self._recorded = record.owed
        else:  # nobody knows: whatever was due is made again
            self.owed, self._recorded = self.due_after(self.state_step), ()
        return self.state_step

    def _restore_newest(self, path: Path, step: int, *, own: bool) -> Path:
        """Restore the state there, or the one before it; returns which.

        step: that of the record; a state of another one is what a kill left without its record.
        """
        found: dict[Path, dict[str, Any]] = {}
        damaged: dict[Path, str] = {}
        for place in (path, before(path)):
            try:
                found[place] = read_state(place)
            except Damaged as error:
                damaged[place] = str(error)
            if place in found and found[place]["step"] == step:
                break
        if not found:
            raise lost(self.plan.run, path, damaged) if own else unreadable(path, damaged)
        used = place if place in found and found[place]["step"] == step else next(iter(found))
        try:
            self._restore(found[used])
            for name, keeper in self.also.items() if own else ():
                keeper.load_state_dict(found[used].get(name) or {})
        except (RuntimeError, ValueError, LookupError, TypeError, *ODD) as error:
            raise misfit(used, (str(error).splitlines() or [type(error).__name__])[0]) from error
        if path in damaged and path.exists():
            self.notices.append(
                f"the state {path} is damaged ({damaged[path]}); the training goes on from the "
                f"one before it, of step {self.state_step}"
            )
        return used

    def _restore(self, state: dict[str, Any]) -> None:
        made, own = optimizer_of(state), self.optimization.name
        if made and class_name(made) != class_name(own):
            raise ValueError(f"it was made with {made}, not with {own}")
        check_axis(state["network"], self.network.state_dict())
        self.network.load_state_dict(state["network"])
        restore_optimizer(self.optimization.optimizer, state["optimizer"])
        self.optimization.scheduler.load_state_dict(state["schedule"])
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        check_rates(_first_rates(self.optimization))
        self.losses.recent.clear()
        self.losses.recent.extend(state["losses"])
        self.state_step = int(state["step"])

    def save_state_if_cheap(self, step: int) -> None:
        """Save state, unless that would take more than its share of the time."""
        if time.monotonic() - self._kept_at >= self._cost / SHARE:
            self.save_state(step)

    def save_state(self, step: int, *, again: bool = False) -> None:
        """Save state after a whole step; `again` where it has changed since it was saved.

        Raises: OutputError where it cannot be written, NotFinite where something of it is not;
        the state before it stays as it was.
        """
        if self._is_finished or (step == self.state_step and not again):
            return
        self._require_sound()  # waits for what the device still does, which is no cost of the state
        began, state = time.monotonic(), self._state(step)
        with self._writing(self.path, bytes_of(state)):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Of one step only the newest is kept: the one before it is to be of another step.
            put = write_atomically if step == self.state_step else replace_state
            put(self.path, lambda part: write_state(part, state))
            record = self._record(step)
            write_record(self.path.parent, record, forced=False)
            write_record(self.plan.run.dir, record)
        self._recorded, self._start = record.owed, None
        self.state_step, self._kept_at = step, time.monotonic()
        self._cost = self._kept_at - began

    def keep_change(self, step: int) -> None:
        """Keep this step anew after a change: on disk, or in memory before the first step.

        Raises: as `save_state`.
        """
        if step:
            self.save_state(step, again=True)
        else:
            self._start = self.in_memory(0)

    def due_after(self, step: int) -> tuple[str, ...]:
        """What is due after a step, in the words of its record."""
        return self.plan.due_after(step)

    def owe(self, *what: str) -> None:
        """From here on this is due, and was not told: a state that is kept now says so."""
        self.owed = tuple(dict.fromkeys((*self.owed, *what)))

    def pay(self, step: int, *what: str) -> None:
        """It is there and was told; where the state of this step is kept, its record says so.

        Raises: OutputError where the record cannot be written.
        """
        self.owed = tuple(name for name in self.owed if name not in what)
        self.record_owed(step)

    def record_owed(self, step: int) -> None:
        """Have the record say what is owed, if it is this step's and says otherwise.

        Raises: OutputError where it cannot be written.
        """
        if step == self.state_step and step and self._recorded != self.owed:
            with self._writing(self.path):
                write_record(self.plan.run.dir, self._record(step))
            self._recorded = self.owed

    def _require_sound(self) -> None:
        require_finite_network(self.network)
        require_finite_optimizer(self.optimization.optimizer)

    def _state(self, step: int) -> dict[str, Any]:
        return {
            "step": step,
            "network": apart(self.network.state_dict()),
            "optimizer": self.optimization.optimizer.state_dict(),
            "optimizer_type": self.optimization.name,
            "optimizer_asked": self.optimization.asked,
            "schedule": self.optimization.scheduler.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else {},
            "losses": list(self.losses.recent),
            **{name: keeper.state_dict() for name, keeper in self.also.items()},
        }

    @contextmanager
    def _writing(self, path: Path, needed: int = 0) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            raise OutputError(
                f"The state could not be written to {path}: {why_unwritten(error, path, needed)}",
                f"The state of step {self.state_step} is untouched, and so is every file.",
                "Free some space there, and start the same settings again to go on.",
            ) from error

    def state_beside(self, saved: Saved) -> Iterator[StateKept]:
        """Keep a state folder with a LoRA file, where that is asked for, and drop outdated ones.

        Raises: OutputError where it cannot be written, NotFinite where something of it is not.
        """
        step, run = saved.step, self.plan.run
        if not keeps_states(self.plan.settings.saving, at_end=step == self.plan.total_steps):
            return
        suffix = Path(saved.path).name.removeprefix(run.name).removesuffix(f".{run.ending}")
        self._require_sound()
        folder, state = run.state_dir(suffix), self._state(step)
        with self._writing(folder, bytes_of(state)):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / STATE_FILE, lambda part: write_state(part, state))
            write_record(folder, RunRecord(run.fingerprint, self.plan.seed, step))
        saving = self.plan.settings.saving
        old = self._outdated(
            step,
            self.plan.save_due(step),
            saving.save_last_n_epochs_state or saving.save_last_n_epochs,
            saving.save_last_n_steps_state or saving.save_last_n_steps,
        )
        if old:
            shutil.rmtree(run.state_dir(old), ignore_errors=True)
        removed = (str(run.state_dir(old)),) if old else ()
        yield StateKept(step, saved.epoch, str(folder), removed)

    def finish(self, step: int) -> None:
        """The run is done, and that was told: its state is no longer needed.

        Raises: OutputError where the record cannot be written.
        """
        self.owed, self._is_finished = (), True
        with self._writing(self.path):
            write_record(self.plan.run.dir, replace(self._record(step), finished=True))
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def _record(self, step: int) -> RunRecord:
        return RunRecord(self.plan.run.fingerprint, self.plan.seed, step, owed=self.owed)

    def save_due(self, step: int) -> Saved | None:
        """Write the epoch's or the step's LoRA file if one is due, and remove the one it replaces.

        What is replaced is told also where it is gone already: a kill may have come between.
        """
        kind = self.plan.save_due(step)
        if not kind:
            return None
        epoch = self.plan.epoch_of(step)
        suffix = epoch_suffix(epoch) if kind == "epoch" else step_suffix(step)
        saved = self.save(step, suffix)
        saving = self.plan.settings.saving
        kept = saving.save_last_n_epochs, saving.save_last_n_steps
        outdated = self._outdated(step, kind, *kept)
        if not outdated:
            return saved
        old = self.plan.run.file(outdated)
        old.unlink(missing_ok=True)
        return replace(saved, removed=(str(old),))

    def save(self, step: int, suffix: str) -> Saved:
        """Write the network now; suffix "" is the final file."""
        epoch = self.plan.epoch_of(step)
        path = self.plan.run.file(suffix)
        with self.writing(), averaged(self.optimization):
            self.write_file(path, step, epoch)
        return Saved(step, epoch, str(path))

    def _outdated(self, step: int, kind: str, epochs: int | None, steps: int | None) -> str:
        """The suffix that this save outdates where the last `epochs` or `steps` are kept.

        For steps it is the reference's rule: kept is what was saved in the last N steps (trainer
        behaviour 10.1). Empty where nothing is outdated, or another run saved it.
        """
        saving, plan = self.plan.settings.saving, self.plan
        began = plan.start.step if plan.start else 0
        if kind == "epoch" and epochs:
            old = plan.epoch_of(step) - (saving.save_every_n_epochs or 1) * epochs
            return epoch_suffix(old) if old > plan.epoch_of(began) else ""
        if kind == "step" and steps:
            old = step - steps - 1
            old -= old % (saving.save_every_n_steps or 1)
            return step_suffix(old) if old > began and plan.save_due(old) == "step" else ""
        return ""


def _first_rates(optimization: Optimization) -> list[float | None]:
    """Every group's rate, before the schedule."""
    return [group.get("initial_lr", group["lr"]) for group in optimization.optimizer.param_groups]


def epoch_suffix(epoch: int) -> str:
    """As kohya: `-000002`."""
    return f"-{epoch:06d}"


def step_suffix(step: int) -> str:
    """As kohya: `-step00000300`."""
    return f"-step{step:08d}"


def share_state(ranks: Ranks, checkpoint: Checkpoint, step: int) -> None:
    """Every process goes on from what the first one has: weights, averages, rates, footing."""
    if ranks.count == 1:
        return
    if ranks.is_first:
        ranks.order(Order.STATE, step, checkpoint.in_memory(step))
    else:
        checkpoint.take_over(ranks.awaited()[2])
