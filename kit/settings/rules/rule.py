"""A rule between settings: a function of the sections that it reads, found by its decorator.

    @problem
    def no_noise_level_left(noise: Noise) -> Iterator[str]:
        if noise.min_timestep >= noise.max_timestep:
            yield "[noise] min_timestep: ..."

The annotations of its parameters say what it is given: sections of the settings, `Changed`, or
`RunLength`. A rule that reads the length is asked once that is known.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kit.settings import Settings

Function = Callable[..., Iterator[str]]


class Changed(frozenset[str]):
    """Names of the settings that differ from their defaults."""


@dataclass(frozen=True)
class RunLength:
    """The optimizer steps of a run, those in which warmup_stable_decay falls, and its epochs."""

    total: int
    decay: int = 0
    epochs: int = 1  # begun ones


@dataclass(frozen=True)
class Rule:
    """A function that yields sentences, with what it reads."""

    function: Function
    stops: bool  # a problem stops the run, a notice is told in the plan
    reads: tuple[type[Any], ...]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def section(self) -> str:
        """The section whose file it stands in."""
        return self.function.__module__.rpartition(".")[2]

    @property
    def needs_length(self) -> bool:
        """It is asked once the run's steps are known."""
        return RunLength in self.reads

    def __call__(self, settings: Settings, length: RunLength | None = None) -> Iterator[str]:
        """Its sentences about these settings; none where it finds nothing."""
        given: dict[type[Any], Any] = {
            type(section): section for _, section in settings if type(section) in self.reads
        }
        if Changed in self.reads:
            given[Changed] = Changed(settings.changed())
        if length is not None:
            given[RunLength] = length
        return self.function(*(given[kind] for kind in self.reads))


def turns_that_never_come(
    length: RunLength, every_epochs: dict[str, int | None], every_steps: dict[str, int | None]
) -> Iterator[str]:
    """Settings by name that say every how many epochs or steps, more than the run has."""
    for (name, every), last, unit in (
        *((item, length.epochs, "epoch") for item in every_epochs.items()),
        *((item, length.total, "step") for item in every_steps.items()),
    ):
        if every and every > last:
            has = f"{last} {unit}" if last == 1 else f"{last} {unit}s"
            yield f"{name} = {every} has no effect: the run has {has}"


def problem(function: Function) -> Rule:
    """What must be changed before training."""
    return Rule(function, True, _read_by(function))


def notice(function: Function) -> Rule:
    """What is accepted but has no effect, or another one than it seems."""
    return Rule(function, False, _read_by(function))


def _read_by(function: Function) -> tuple[type[Any], ...]:
    hints = typing.get_type_hints(function)
    hints.pop("return", None)
    sections = {info.annotation for info in Settings.model_fields.values()}
    for name, kind in hints.items():
        if kind not in {*sections, Changed, RunLength}:
            raise TypeError(
                f"{function.__name__}: {name} is no section of the settings; a rule is given "
                "sections, Changed and RunLength"
            )
    return tuple(hints.values())
