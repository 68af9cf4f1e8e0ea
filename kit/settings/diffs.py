"""What differs between two settings, for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kit.settings import Settings, declarations


@dataclass(frozen=True)
class Change:
    """A setting that differs."""

    name: str
    label: str
    before: Any
    after: Any

    def __str__(self) -> str:
        """The name with both values."""
        return f"{self.name}: {in_words(self.before)} -> {in_words(self.after)}"


def diff(before: Settings, after: Settings) -> list[Change]:
    """Every setting whose value differs, in the order of the form."""
    old, new = before.flat(), after.flat()
    return [
        Change(name, declared.label, old[name], new[name])
        for name, declared in declarations().items()
        if old[name] != new[name]
    ]


def in_words(value: Any) -> str:
    """A value as it is written in a file; a blank is called so."""
    if value is None or value == "":
        return "(blank)"
    return str(value).lower() if isinstance(value, bool) else str(value)
