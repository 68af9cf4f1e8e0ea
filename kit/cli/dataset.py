"""`kit arrange` and `kit balance`: a data set's folders."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from kit import catalog
from kit.cli.command import Command
from kit.events import Cached, Event, Noticed
from kit.settings.setting import Section
from kit.settings.tools import Arrangement, Balance, filled


def _asks(parser: argparse.ArgumentParser, kind: type[Section]) -> None:
    """One option for every question; a flag for what is on or off."""
    for declared in kind.all_declared():
        option, text = f"--{declared.name.replace('_', '-')}", declared.help.replace("%", "%%")
        if declared.type == "bool":
            parser.add_argument(option, action="store_true", help=text)
        else:
            shown = "N" if declared.type == "int" else declared.type.upper()
            default = f" (default: {declared.default})" if declared.default else ""
            parser.add_argument(
                option, default=declared.default, metavar=shown, help=f"{text}{default}"
            )


def _answers(chosen: argparse.Namespace, kind: type[Section]) -> dict[str, Any]:
    return {declared.name: getattr(chosen, declared.name) for declared in kind.all_declared()}


def _told(events: Iterator[Event]) -> None:
    for event in events:
        if isinstance(event, Noticed):
            print(event.text, flush=True)
        elif isinstance(event, Cached) and event.done == event.total:
            print(f"{event.total} {event.what}", flush=True)


def _act_arrange(chosen: argparse.Namespace) -> None:
    asked = filled(Arrangement, **_answers(chosen, Arrangement))
    _told(catalog.load("kit.tools.arranging:arrange")(asked))


def _act_balance(chosen: argparse.Namespace) -> None:
    asked = filled(Balance, **_answers(chosen, Balance))
    _told(catalog.load("kit.tools.arranging:balance")(asked))


ARRANGE = Command(
    "copy images into the folders that a training expects",
    lambda parser: _asks(parser, Arrangement),
    _act_arrange,
)
BALANCE = Command(
    "say, or with --rename set, the repeats that balance a data set's folders",
    lambda parser: _asks(parser, Balance),
    _act_balance,
)
