"""Requests to a training from outside its process: a file each, in its run's folder.

<name>.run/requests/<time>-<process>-<number>.json    one request, whole or not there at all

`leave` writes one; the training takes them in between two steps (`Inbox`), in their order, and
takes the file away, which is the answer. Each is addressed to one holder of the folder, see
`kit.runs.lock`: what was meant for a training that was killed stops no later one. Where nobody asks
for anything, the folder is not there, and a step costs one `stat`.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kit.control import LrRequest, RunControl, SampleRequest, SaveRequest, UnreadRequest
from kit.errors import KitError, OutputError, Unreadable
from kit.reading.fields import dataclass_from
from kit.reading.texts import read_json
from kit.runs.atomic_write import write_atomically
from kit.runs.lock import who_is_at_work_in
from kit.settings.prompts import parse_prompt

FOLDER = "requests"
TRIES = 20  # to write into a folder that the training takes away whenever it is empty
PERIOD = 0.1  # seconds between two looks for the answer
_numbers = itertools.count()


@dataclass(frozen=True)
class Asked:
    """One request: `what` is a word of ASKS, and the rest is what it needs.

    prompt: one line of sample_prompts, "" for the run's own. part: the group of weights whose
    learning rate changes, "" for all; factor or rate: see `kit.control.LrRequest`. to: the id of
    the holder that it is for.
    """

    what: str
    prompt: str = ""
    part: str = ""
    factor: float | None = None
    rate: float | None = None
    to: str = ""


ASKS = {
    "stop": lambda control, asked: control.stop(),
    "pause": lambda control, asked: control.pause(),
    "go-on": lambda control, asked: control.go_on(),
    "sample": lambda control, asked: control.request(
        SampleRequest(parse_prompt(asked.prompt) if asked.prompt else None)
    ),
    "save": lambda control, asked: control.request(SaveRequest()),
    "rate": lambda control, asked: control.request(
        LrRequest(asked.part, factor=asked.factor, rate=asked.rate)
    ),
}


class Inbox:
    """Takes in what was asked of one training: the one that holds the folder under this id."""

    def __init__(self, run_dir: Path, holder_id: str) -> None:
        self._folder, self._id = run_dir / FOLDER, holder_id
        self._seen: set[str] = (
            set()
        )  # where a file cannot be taken away, it counts once all the same

    def __call__(self, control: RunControl) -> None:
        """Ask `control` for each that waits, in order."""
        try:
            self._folder.stat()
            waiting = sorted(path for path in self._folder.iterdir() if path.suffix == ".json")
        except OSError:  # mostly: it is not there
            return
        for path in waiting:
            if path.name not in self._seen:
                self._seen.add(path.name)
                self._take_in(path, control)
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):  # another one has come
            self._folder.rmdir()

    def _take_in(self, path: Path, control: RunControl) -> None:
        try:
            asked = dataclass_from(Asked, read_json(path), path.name)
            if asked.to != self._id:
                return
            if asked.what not in ASKS:
                raise Unreadable(path.name, f"asks for {asked.what[:80]!r}")
            if asked.what == "rate" and (asked.rate is None) == (asked.factor is None):
                raise Unreadable(path.name, "gives no rate, or two")
            ASKS[asked.what](control, asked)
        except (Unreadable, ValueError) as error:
            control.request(
                UnreadRequest(f"A request is not understood, and nothing was done: {error}")
            )


@dataclass(frozen=True)
class Left:
    """A request that waits, and the holder that it is for."""

    file: Path
    to: str


def leave(run_dir: Path, asked: Asked) -> Left:
    """Ask the training that is at work in a run's folder.

    Raises: KitError where none is at work; OutputError where the folder cannot be written.
    """
    holder = who_is_at_work_in(run_dir)
    if holder is None:
        raise KitError(
            f"No training is at work in {run_dir}, so nobody would hear {asked.what}.",
            _others_beside(run_dir),
            "kit watch tells how far it came; kit train with the same settings goes on with it.",
        )
    if not isinstance(holder.get("id"), str):
        raise KitError(
            f"The training at work in {run_dir} hears no requests.",
            "It was started by an older version, or on a disk that was full.",
            "End it with Ctrl-C in its terminal, or with Stop in its notebook: it goes on later.",
        )
    addressed = replace(asked, to=holder["id"])
    name = f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers):06d}.json"
    path = run_dir / FOLDER / name
    text = json.dumps({key: value for key, value in asdict(addressed).items() if value is not None})
    for last in [False] * TRIES + [True]:
        try:
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, lambda part: part.write_text(text, "utf-8"))
            break
        except FileNotFoundError as error:
            if last or not run_dir.is_dir():
                raise _unwritten(path, error) from error
        except OSError as error:
            raise _unwritten(path, error) from error
    return Left(path, addressed.to)


def was_read(request: Left, *, patience: float) -> bool | None:
    """Wait for the answer: True once it was read, None where it still waits after `patience`.

    False where the training ended before it could read it; then the request is withdrawn.
    """
    folder, until = request.file.parent, time.monotonic() + patience
    while request.file.exists():
        holder = who_is_at_work_in(folder.parent)
        if holder is None or holder.get("id") != request.to:
            return not _withdrawn(request.file)
        if time.monotonic() > until:
            return None
        time.sleep(PERIOD)
    return True


def _withdrawn(file: Path) -> bool:
    """Whether it was there still."""
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    with suppress(OSError):
        file.parent.rmdir()
    return True


def _others_beside(run_dir: Path) -> str:
    """Which runs in the same output folder could be asked."""
    try:
        folders = sorted(run_dir.parent.glob("*.run"))
    except OSError:
        folders = []
    names = [each.stem for each in folders if who_is_at_work_in(each) is not None]
    if names:
        return f"At work in {run_dir.parent} is {', '.join(names)}."
    return "A run is asked while it trains, from its start to its end."


def _unwritten(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path.parent} cannot be written: {error.strerror or error}.",
        "A request is left in the run's folder, where the training reads it.",
        "Ask as the user who started the training, or free some space.",
    )
