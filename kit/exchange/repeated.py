"""An argument that stands twice with two values: the last counts, and the report tells the other.

sd-scripts reads a command line so (argparse), the arguments of a network, and its files, whose
tables it throws together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kit.exchange.command_line import pairs_in
from kit.exchange.dialect import is_secret
from kit.exchange.report import Line, Verdict, shown
from kit.exchange.sd_scripts import entries_in, entries_of

Overruled = tuple[str, Any, Any]  # a name, the value that is not used, and the one that is


def of_command(text: str) -> list[Overruled]:
    """What a command line says twice, and what its network's arguments do."""
    pairs = list(pairs_in(text))
    return [*_of_pairs(pairs), *of_arguments(dict(pairs))]


def of_arguments(arguments: Mapping[str, Any]) -> list[Overruled]:
    """What tables of arguments, or the network's own, say twice."""
    return list(_of_pairs(entries_in(arguments)))


def of_file_beside(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> list[Overruled]:
    """What a command line says otherwise than the configuration file that it names."""
    file, command = entries_of(inner), entries_of(outer)
    return [
        (name, value, command[name])
        for name, value in file.items()
        if name in command and str(value) != str(command[name])
    ]


def lines_of(overruled: Iterable[Overruled]) -> list[Line]:
    """A line of the report for each value that is not used."""
    return [_line(*each) for each in dict.fromkeys(_hashable(overruled))]


def _of_pairs(pairs: Iterable[tuple[str, Any]]) -> Iterator[Overruled]:
    pairs = list(pairs)
    last = dict(pairs)
    yield from ((name, value, last[name]) for name, value in pairs if value != last[name])


def _hashable(overruled: Iterable[Overruled]) -> Iterator[tuple[str, str, str]]:
    for name, value, counts in overruled:
        hidden = is_secret(name, value) or is_secret(name, counts)
        yield (name, "", "") if hidden else (name, shown(value), shown(counts))


def _line(name: str, value: str, counts: str) -> Line:
    told = "given again with another value, which counts"
    return Line(name, value, Verdict.NO_EFFECT, f"{told}: {counts}" if counts else told)
