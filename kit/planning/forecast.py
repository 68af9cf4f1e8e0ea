"""What a training will take, told before it begins: from measured runs, never from a guess.

First this machine's own runs count, then the figures that come with LoRA Kit, of the same GPU.
One rule scales them: a step takes as long as the measured one, and so does a sample picture;
validation takes its share beside the steps (`kit.validation.schedule`). Where a run of the same
base was measured at another batch, size or checkpointing, it is reckoned from that
(`kit.planning.needs`). Loading, caching and saving are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Protocol

from kit.basemodel.mismatches import known_of
from kit.hosts import Gpu, gpu, processor
from kit.planning.lora_size import network_size
from kit.planning.needs import SCALED, beside, kind_of, seconds_share
from kit.planning.proposals import HasData, candidate_of, family_of, proposal, room_here
from kit.runs.measured import (
    NEARLY,
    Measured,
    Work,
    best_of,
    measured_here,
    read_measured,
    work_of,
)
from kit.validation.schedule import Schedule

UNKNOWN = "Time and memory are not known on this machine yet"
_MAKERS = ("NVIDIA ", "Tesla ", "GeForce ")  # `T4` is what people call it


class Planned(HasData, Protocol):
    """What is read of a plan."""

    @property
    def subsets(self) -> Sized:
        """Data sets of their own settings."""

    @property
    def prompts(self) -> Sized:
        """Of the sample pictures."""

    @property
    def total_steps(self) -> int:
        """In all."""

    @property
    def from_step(self) -> int:
        """Steps that are done already."""

    @property
    def validation(self) -> Schedule:
        """When the LoRA is asked about pictures, and the share of the time that takes."""

    def sample_due(self, step: int) -> bool:
        """Sample pictures are due after this step."""


@dataclass(frozen=True)
class Figures:
    """What a run is forecast from: a measured row, as it is or reckoned for other work."""

    row: Measured
    differs: tuple[str, ...]
    is_reckoned: bool = False


def forecast(plan: Planned) -> str:
    """Time and memory in a sentence without its full stop, or that they are not known yet."""
    card = gpu()
    device = card.name if card else processor()
    found = figures(plan, device)
    if found is None:
        return UNKNOWN + _too_little(plan)
    seconds = _whole(plan, found.row, found.row.seconds)
    told = f"About {_in_time(seconds)} on this {_called(device)}{_memory(found.row, card)}"
    return told + _too_little(plan, found.row) + _because(found)


def figures(plan: Planned, device: str) -> Figures | None:
    """What is known of that work on that device: measured, or else reckoned from other work."""
    known = known_of(plan.settings.model)
    if known is None or plan.subsets:  # data sets of their own sizes: no step is like another
        return None
    work = work_of(plan.settings, known.family)
    found = best_of(measured_here(), device, work) or best_of(shipped(), device, work)
    if found is not None:
        return Figures(*found)
    for rows in (measured_here(), shipped()):
        if reckoned := _reckoned(plan, rows, device, work):
            return reckoned
    return None


def corrected(plan: Planned, seconds: float, megabytes: int) -> str:
    """What a batch that was tried out says of the run, and what the plan had said of it.

    seconds: of forward and backward of the largest batch; megabytes: the most in use.
    """
    card = gpu()
    found = figures(plan, card.name if card else processor())
    step = seconds * plan.settings.basic.gradient_accumulation_steps
    row = Measured("", {}, step, megabytes, found.row.picture_seconds if found else 0.0)
    told = f"a step takes about {step:.2g} s{_memory(row, card)}"
    if found is None:
        return f"{told}, all of it about {_in_time(_whole(plan, row, step))}"
    before = f"{found.row.seconds:.2g} s{_memory(found.row, None)}"
    return f"{told}; the plan said {before}, so it is about {_in_time(_whole(plan, row, step))}"


def _whole(plan: Planned, row: Measured, seconds: float) -> float:
    """Seconds of all the steps, validations and pictures that are left."""
    steps = (plan.total_steps - plan.from_step) / (1 - plan.validation.share)
    drawn = sum(plan.sample_due(step) for step in range(plan.from_step, plan.total_steps + 1))
    return steps * seconds + drawn * len(plan.prompts) * row.picture_seconds


def _reckoned(plan: Planned, rows: Sequence[Measured], device: str, work: Work) -> Figures | None:
    """From the newest run of the same base that differs least in what can be reckoned."""
    kind, size = kind_of(device), network_size(plan.settings, work["family"])
    if size is None or not family_of(plan.settings.model):
        return None
    fits: list[tuple[Measured, tuple[str, ...]]] = []
    for row in rows:
        differs = tuple(name for name, value in row.work.items() if work.get(name) != value)
        if row.device == device and all(name in (*NEARLY, *SCALED[kind]) for name in differs):
            fits.append((row, differs))
    if not fits:
        return None
    row, differs = min(reversed(fits), key=lambda fit: len(fit[1]))
    share = seconds_share(work, {**work, **row.work}, kind)
    needs = beside(row, work, lora_weights=size.weights) or 0.0
    return Figures(
        replace(row, seconds=row.seconds * share, megabytes=round(needs)), differs, is_reckoned=True
    )


def _too_little(plan: Planned, row: Measured | None = None) -> str:
    """That the memory is too small, of the GPU or the machine, and what would fit."""
    asked, card, room = candidate_of(plan), gpu(), room_here()
    need = float(row.megabytes) if row and row.megabytes else asked.megabytes(room.kind)
    told = []
    if need is not None and need > (card.megabytes if card else room.megabytes):
        of = card.megabytes if card else room.megabytes
        told.append("that will not fit" if row and card else f"{_of(need, of)} will not fit")
    if room.kind == "gpu" and asked.host > room.host:
        told.append(f"{_of(asked.host, room.host)} of this machine's own memory will not do")
    if not told:
        return ""
    found = proposal(asked, room, row) if asked.family else None
    better = f", but this will: {found}" if found and found.changes else ""
    return f": {' and '.join(told)}{better}"


def _of(need: float, room: float) -> str:
    return f"{need / 1000:.1f} of {room / 1000:.1f} GB"


@cache
def shipped() -> tuple[Measured, ...]:
    """The figures that come with LoRA Kit; each names where it is from."""
    text = (files("kit.planning") / "measured.json").read_text("utf-8")
    return tuple(read_measured(text))


def _memory(row: Measured, card: Gpu | None) -> str:
    if not row.megabytes:
        return ""
    used = row.megabytes / 1000
    if card is None:
        return f", {used:.1f} GB"
    return f", {used:.1f} of {card.megabytes / 1000:.0f} GB"


def _because(found: Figures) -> str:
    """Where the figure is from, as far as that is not this machine at the same work."""
    source, told = found.row.source, []
    if source:
        told.append(f"measured on such a card in {source}")
    if found.differs:
        how = "reckoned from a run" if found.is_reckoned else "measured"
        told.append(f"{how} with another {' and '.join(found.differs)}")
    return f" ({'; '.join(told)})" if told else ""


def _called(device: str) -> str:
    if device.startswith("CPU"):
        return "CPU"
    for maker in _MAKERS:
        device = device.removeprefix(maker)
    return device


def _in_time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
