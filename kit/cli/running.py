"""`kit control` and `kit watch`: a run at work in another terminal, or in a notebook."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from pathlib import Path

from kit.cli.command import Command
from kit.control import parse_rate
from kit.errors import KitError
from kit.events import Event, Failed, Finished
from kit.runs.control_files import ASKS, Asked, leave, was_read
from kit.runs.finding import Found, find_run
from kit.runs.lock import who_is_at_work_in
from kit.settings.prompts import parse_prompt
from kit.sinks import Console
from kit.sinks.tail import Tail

PATIENCE = 30.0  # seconds that a request's answer is waited for
PERIOD = 0.5  # seconds between two looks at the events
BROKEN_OFF, STOPPED = 2, 3  # exit codes, as of `kit train`

TOLD = {
    "stop": "It ends after this step, and saves.",
    "pause": "It rests after this step, until kit control ... go-on.",
    "go-on": "It goes on.",
    "sample": "Samples are drawn after this step.",
    "save": "The LoRA is saved after this step.",
    "rate": "The rate changes after this step.",
}


def _describe_control(parser: argparse.ArgumentParser) -> None:
    _takes_run(parser)
    parser.add_argument("what", choices=list(ASKS), help="what is asked of it, between two steps")
    parser.add_argument(
        "value",
        nargs="?",
        default="",
        metavar="VALUE",
        help="of rate: 5e-5, or x0.5 to multiply it; of sample: a prompt (default: the run's own)",
    )
    parser.add_argument(
        "--part", default="", metavar="PART", help="of rate: unet or text_encoder (default: all)"
    )
    parser.epilog = """examples:
  %(prog)s output/cat.run stop
  %(prog)s output/cat sample "a cat on a sofa --w 512 --h 512"
  %(prog)s output/cat rate x0.5 --part unet"""


def _takes_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a run's folder (output/cat.run), its name in the output folder (output/cat), or a "
        "LoRA file of it",
    )


def _act_control(chosen: argparse.Namespace) -> None:
    asked, run = _asked(chosen), find_run(chosen.run)
    request = leave(run.works_in, asked)
    print(f"{run.name}: asked to {asked.what}. {TOLD[asked.what]}", flush=True)
    is_read = was_read(request, patience=PATIENCE)
    if is_read is False:
        raise KitError(
            f"{run.name} ended before it could read this; nothing was done.",
            "A request is read between two steps.",
            f"kit watch {chosen.run} tells how it ended.",
        )
    if is_read is None:
        print(f"It is busy, and has not read this for {PATIENCE:.0f} s; it will after this step.")


def _asked(chosen: argparse.Namespace) -> Asked:
    """What is asked, checked before anybody is.

    Raises: KitError.
    """
    what, value = chosen.what, chosen.value.strip()
    if value and what not in ("rate", "sample"):
        raise KitError(
            f"kit control ... {what} {value}: {what} takes no value.",
            "rate takes one, and sample may have a prompt.",
            f"Leave {value} out.",
        )
    if chosen.part and what != "rate":
        raise KitError(
            f"--part {chosen.part}: {what} concerns the whole run.",
            "Only rate has a part: unet, text_encoder.",
            "Leave --part out.",
        )
    try:
        if what == "rate":
            rate = parse_rate(value, chosen.part)
            return Asked(what, part=rate.group, factor=rate.factor, rate=rate.rate)
        if value:
            parse_prompt(value)
    except ValueError as error:
        raise KitError(f"kit control ... {what}: {error}") from error
    return Asked(what, prompt=value)


def _act_watch(chosen: argparse.Namespace) -> int:
    run = find_run(chosen.run)
    try:
        last = _follow(run)
    except KeyboardInterrupt:
        print(f"\n{run.name} is left alone; kit watch shows it again.", file=sys.stderr)
        return 0
    if isinstance(last, Finished):
        return 0 if last.reason == "done" else STOPPED
    if isinstance(last, Failed):
        print(f"kit: {run.name} broke off: {last.text}", file=sys.stderr)
    else:
        print(
            f"kit: nobody is at work in {run.kept_in}: it was broken off. kit train with the same "
            "settings goes on from the last state that it kept.",
            file=sys.stderr,
        )
    return BROKEN_OFF


def _follow(run: Found) -> Event | None:
    """Show what a run tells until it is over; returns the last that it told.

    A file that was written anew, as a run does that goes on, is not shown twice.
    """
    tail, told, quiet = Tail(_events_of(run)), list[Event](), 0
    with closing(Console()) as console:
        while quiet < 2:  # the last word, of what broke it off, comes after the training has left
            is_at_work = who_is_at_work_in(run.works_in) is not None  # asked before the look
            events, is_anew = _new_in(tail)
            new = events[_in_common(events, told) :] if is_anew else events
            for event in new:
                console(event)
            told = events if is_anew else told + events
            quiet = 0 if new or is_at_work else quiet + 1
            time.sleep(PERIOD)
    return told[-1] if told else None


def _in_common(one: list[Event], other: list[Event]) -> int:
    """How many events both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _events_of(run: Found) -> Path:
    file = run.works_in / "events.jsonl"
    if not file.is_file() and who_is_at_work_in(run.works_in) is None:
        raise KitError(
            f"{file} does not exist, so there is nothing to show.",
            "A training writes it into its run's folder as soon as it begins.",
            "kit train with the same settings begins it.",
        )
    return file


def _new_in(tail: Tail) -> tuple[list[Event], bool]:
    try:
        return tail.new()
    except FileNotFoundError:  # not begun, or just written anew
        return [], False


CONTROL = Command(
    "ask a run at work to stop, pause, go on, sample, save, or change its rate",
    _describe_control,
    _act_control,
)
WATCH = Command(
    "follow a run in this terminal until it ends; Ctrl-C leaves it alone",
    _takes_run,
    _act_watch,
)
