"""What a person says in a terminal about an unfinished run that is made otherwise."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

from kit.cli.settings_arguments import read_settings
from kit.launching.command import Launch, launch_asked_for
from kit.planning import Plan, plan
from kit.runs.run import Run
from kit.runs.unfinished import refuse_undecided
from kit.settings.links import without_tokens

ANSWERS = {"--go-on": "go on", "--begin-anew": "begin anew"}


def takes_answer(parser: argparse.ArgumentParser) -> None:
    """Arguments that `planned` wants, besides the settings."""
    either = parser.add_mutually_exclusive_group()
    for word, value, text in (
        ("--go-on", ANSWERS["--go-on"], "go on with an unfinished run of that name whose pictures, "
         "captions or rounding are others now"),
        ("--begin-anew", ANSWERS["--begin-anew"], "leave it as it is, and begin another run"),
    ):  # fmt: skip
        either.add_argument(word, action="store_const", const=value, dest="unfinished", help=text)


def planned(chosen: argparse.Namespace) -> tuple[Plan, Launch | None]:
    """The plan of what a command was given, and the launch of several processes that it asks for.

    Raises: KitError, also where the machine has fewer GPUs.
    """
    settings = read_settings(chosen.file, chosen.changes, preset=chosen.preset)
    launch = launch_asked_for(settings.machine)
    processes = launch.processes if launch else None  # None: as many as are there
    return plan(settings, unfinished=chosen.unfinished or "ask", processes=processes), launch


def refuse(chosen: argparse.Namespace, run: Run) -> None:
    """Let nobody train before it is decided; both commands are told.

    Raises: KitError.
    """
    words = shlex.join(_words(chosen))
    refuse_undecided(run, go_on=f"{words} --go-on", begin_anew=f"{words} --begin-anew")


def _words(chosen: argparse.Namespace) -> Iterator[str]:
    yield from ("kit", "train")
    yield from [str(chosen.file)] if chosen.file else []
    yield from ["--preset", chosen.preset] if chosen.preset else []
    for change in chosen.changes:
        yield from ("--set", without_tokens(change))
