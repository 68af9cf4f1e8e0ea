"""A rule between settings: a function of the sections that it reads, found by its decorator.

    @problem
    def no_noise_level_left(noise: Noise) -> Iterator[str]:
        if noise.min_timestep >= noise.max_timestep:
            yield "[noise] min_timestep: ..."

    @idle
    def scale_of_no_dropout(network: NetworkSettings) -> Iterator[Idle]:
        if not network.rank_dropout:
            yield Idle("rank_dropout is 0", "rank_dropout_scale")

The annotations of its parameters say what it is given: sections of the settings, `Changed`, or
`RunLength`. A rule that reads the length is asked once that is known.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kit.settings import Settings, declarations

Function = Callable[..., Iterator[Any]]
Sections = Iterable[tuple[str, Any]]  # by name; what settings consist of


class Changed(frozenset[str]):
    """Names of the settings that differ from their defaults."""


@dataclass(frozen=True)
class RunLength:
    """The optimizer steps of a run, those in which warmup_stable_decay falls, and its epochs."""

    total: int
    decay: int = 0
    epochs: int = 1  # begun ones


class Idle:
    """Settings that change nothing, whatever stands in them: grey in the form, told in the plan."""

    def __init__(self, why: str, *names: str, asked: bool | None = None) -> None:
        """why: another setting and its value. names: the settings that are idle.

        asked: whether anybody wants something of them, which is told; None: as far as they differ
        from their defaults, be it not by a 0 in place of a blank.
        """
        self.why, self.names, self.asked = why, names, asked

    def told(self, changed: Mapping[str, Any]) -> Iterator[str]:
        """Sentences about those that are asked for; changed: what differs from its default."""
        for name in self.names:
            asked = self.asked
            if asked is None:
                asked = name in changed and bool(changed[name] or declarations()[name].default)
            if asked:
                yield f"{name} has no effect: {self.why}"


@dataclass(frozen=True)
class Rule:
    """A function that yields sentences, or what is idle, with what it reads."""

    function: Function
    stops: bool  # a problem stops the run, a notice is told in the plan
    reads: tuple[type[Any], ...]
    finds_idle: bool = False

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

    def __call__(
        self,
        settings: Settings,
        length: RunLength | None = None,
        *,
        changed: Mapping[str, Any] | None = None,
    ) -> Iterator[str]:
        """Its sentences about these settings; none where it finds nothing.

        changed: what differs from its default, where it is known already.
        """
        if changed is None:
            changed = settings.changed() if self.finds_idle or Changed in self.reads else {}
        if self.finds_idle:
            return (text for each in self.idle(settings) for text in each.told(changed))
        given = _by_kind(settings)
        if Changed in self.reads:
            given[Changed] = Changed(changed)
        if length is not None:
            given[RunLength] = length
        return self.function(*(given[kind] for kind in self.reads))

    def idle(self, sections: Sections) -> Iterator[Idle]:
        """What it finds idle; nothing where that is not what it looks for."""
        if not self.finds_idle:
            return iter(())
        given = _by_kind(sections)
        return self.function(*(given[kind] for kind in self.reads))


def _by_kind(sections: Sections) -> dict[type[Any], Any]:
    return {type(section): section for _, section in sections}


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
    """What is accepted but has another effect than it seems, or none with this value."""
    return Rule(function, False, _read_by(function))


def idle(function: Function) -> Rule:
    """What has no effect with any value, because of another setting."""
    return Rule(function, False, _read_by(function), finds_idle=True)


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
