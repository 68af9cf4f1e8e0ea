"""What became of every key of a foreign file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kit.settings.diffs import in_words
from kit.settings.links import without_tokens

LONGEST_VALUE = 60


class Verdict(StrEnum):
    """What became of one key."""

    TAKEN = "taken"
    TRANSLATED = "translated"
    NO_EFFECT = "without effect here"
    UNKNOWN = "unknown"
    REFUSED = "not possible here"


@dataclass(frozen=True)
class Line:
    """One key of the file."""

    key: str
    value: str  # shortened, for people; blank for a secret
    verdict: Verdict
    told: str = ""  # how it was translated, or why it has no effect
    changes: Mapping[str, Any] = field(default_factory=dict)  # settings that it decides
    is_elsewhere: bool = False  # it says that the whole file is for another kind of model

    def __post_init__(self) -> None:
        """A report is printed and kept: the token of a link goes no further."""
        for name in ("value", "told"):
            object.__setattr__(self, name, without_tokens(getattr(self, name)))

    def __str__(self) -> str:
        """The key, its value and what became of it."""
        shown = f"{self.key} = {self.value}" if self.value else self.key
        return f"{shown}: {self.told}" if self.told else shown


@dataclass(frozen=True)
class Report:
    """What became of a file: one line for each of its keys."""

    source: str  # the file or what the text was taken for
    lines: tuple[Line, ...]
    assumed: Mapping[str, Any] = field(default_factory=dict)  # absent, so the other program's own
    missing: Mapping[str, str] = field(default_factory=dict)  # paths that are not on this machine
    strict: bool = False  # the other program, too, refuses what it does not know
    is_foreign: bool = True  # not a file of our own
    elsewhere: str = ""  # why the file is none for us, so that nothing is taken from it
    refused: tuple[str, ...] = ()  # what the plan's checks say of the settings that came out
    notes: tuple[str, ...] = ()

    def of(self, verdict: Verdict) -> tuple[Line, ...]:
        """The lines of one verdict."""
        return tuple(line for line in self.lines if line.verdict is verdict)

    @property
    def counts(self) -> dict[str, int]:
        """How many keys had each verdict."""
        found = Counter(line.verdict for line in self.lines)
        return {str(verdict): found[verdict] for verdict in Verdict}

    def problems(self, *, settled: Mapping[str, Any] | None = None) -> list[str]:
        """What stands in the way of training with it; settled: settings given another way."""
        if self.elsewhere:
            return [f"{self.source}: {self.elsewhere}"]
        stops = [line for line in self.of(Verdict.REFUSED) if not _is_settled(line, settled or {})]
        if self.strict:
            stops += self.of(Verdict.UNKNOWN)
        return [f"{self.source}: {line}" for line in stops]

    def summary(self) -> str:
        """One sentence with the counts, or that nothing is taken."""
        if self.elsewhere:
            return f"{self.source}: {self.elsewhere}; nothing is taken from it"
        counts = ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items() if count)
        keys = "1 key" if len(self.lines) == 1 else f"{len(self.lines)} keys"
        return f"{self.source}: {keys}, {counts}" if counts else f"{self.source}: {keys}"

    def text(self, *, with_taken: bool = True, with_checks: bool = True) -> Iterator[str]:
        """The whole report, a line at a time."""
        yield self.summary()
        if not self.elsewhere:
            yield from self.to_decide(with_checks=with_checks)
            yield from self.to_know(with_taken=with_taken)

    def to_decide(self, *, with_checks: bool = True) -> Iterator[str]:
        """What a person has to look at, a line at a time."""
        yield from self.notes
        if self.refused and with_checks:
            yield "a training with these settings would be refused, until they are changed:"
            yield from (f"  {problem}" for problem in self.refused)
        yield from self._listed(Verdict.REFUSED)
        yield from self._listed(Verdict.UNKNOWN)

    def to_know(self, *, with_taken: bool = True) -> Iterator[str]:
        """What simply holds, a line at a time."""
        yield from self._listed(Verdict.NO_EFFECT)
        yield from self._listed(Verdict.TRANSLATED)
        if with_taken:
            yield from self._listed(Verdict.TAKEN)
        if self.assumed:
            yield "not in it, so the other program's own default counts:"
            yield from (f"  {name} = {shown(value)}" for name, value in self.assumed.items())
        if self.missing:
            yield "not on this machine:"
            yield from (f"  {name} = {path}" for name, path in self.missing.items())

    def _listed(self, verdict: Verdict) -> Iterator[str]:
        if lines := self.of(verdict):
            yield f"{verdict}:"
            yield from (f"  {line}" for line in lines)

    def __str__(self) -> str:
        """The whole report."""
        return "\n".join(self.text())


def _is_settled(line: Line, settled: Mapping[str, Any]) -> bool:
    return bool(line.changes) and set(line.changes) <= set(settled)


def shown(value: Any) -> str:
    """A value as a person reads it, on one line."""
    text = " ".join(map(str, value)) if isinstance(value, list) else in_words(value)
    text = " ".join(text.split()) or in_words("")
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
