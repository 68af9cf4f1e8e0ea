"""What a training will take, told before it begins: from measured runs, never from a guess.

First this machine's own runs count, then the figures that come with LoRA Kit, of the same GPU.
One rule scales them: a step takes as long as the measured one, and so does a sample picture.
Loading, caching and saving are not in it.
"""

from __future__ import annotations

from collections.abc import Sized
from functools import cache
from importlib.resources import files
from typing import Protocol

from kit.basemodel.mismatches import known_of
from kit.hosts import Gpu, gpu, processor
from kit.runs.measured import Measured, best_of, measured_here, read_measured, work_of
from kit.settings import Settings

UNKNOWN = "Time and memory are not known on this machine yet"
_MAKERS = ("NVIDIA ", "Tesla ", "GeForce ")  # `T4` is what people call it


class Planned(Protocol):
    """What is read of a plan."""

    @property
    def settings(self) -> Settings:
        """The run's."""

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

    def sample_due(self, step: int) -> bool:
        """Sample pictures are due after this step."""


def forecast(plan: Planned) -> str:
    """Time and memory in a sentence without its full stop, or that they are not known yet."""
    known = known_of(plan.settings.model)
    if known is None or plan.subsets:  # data sets of their own sizes: no step is like another
        return UNKNOWN
    card = gpu()
    device = card.name if card else processor()
    work = work_of(plan.settings, known.family)
    found = best_of(measured_here(), device, work) or best_of(shipped(), device, work)
    if found is None:
        return UNKNOWN
    row, differs = found
    steps = plan.total_steps - plan.from_step
    drawn = sum(plan.sample_due(step) for step in range(plan.from_step, plan.total_steps + 1))
    seconds = steps * row.seconds + drawn * len(plan.prompts) * row.picture_seconds
    return f"About {_in_time(seconds)} on this {_called(device)}{_memory(row, card)}" + _because(
        row, differs
    )


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
    tight = ": that will not fit" if row.megabytes > card.megabytes else ""
    return f", {used:.1f} of {card.megabytes / 1000:.0f} GB{tight}"


def _because(row: Measured, differs: tuple[str, ...]) -> str:
    """Where the figure is from, as far as that is not this machine at the same work."""
    told = [f"measured on such a card in {row.source}"] if row.source else []
    if differs:
        told.append(f"measured with another {' and '.join(differs)}")
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
