"""What a person does with a queue: add, take out, order, pause, try again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kit.errors import KitError, OutputError
from kit.queueing.outcome import RUN_DIR, is_alive, is_worked_off, run_dir_of, settled
from kit.queueing.starting import ENDED
from kit.queueing.store import Content, Entry, Queue
from kit.reading.paths import path_of
from kit.runs.at_work import at_work_as, place_of
from kit.runs.atomic_write import write_atomically
from kit.runs.control_files import Asked, leave
from kit.runs.lock import who_is_at_work_in


@dataclass(frozen=True)
class New:
    """A run to be added: its name and output folder, and all of its settings."""

    name: str
    output_dir: str
    toml: str


def settle(queue: Queue) -> Content:
    """The queue, with what became of the runs that it started."""
    with queue.changing() as content:
        settle_in(queue, content)
    return content


def settle_in(queue: Queue, content: Content) -> list[Entry]:
    """Write down what became of started runs; returns those that have ended."""
    ended = []
    for entry in [each for each in content.entries if each.state == "started"]:
        now = settled(queue, entry)
        if now is not None and now != entry:
            if now.state == "waiting":
                _anew(queue, content, now)
            else:
                content.put(now)
            ended.append(now)
    return ended


def add(queue: Queue, runs: Sequence[New], *, folder: Path, together: bool = False) -> list[Entry]:
    """Put runs at the end, all of them or none.

    folder: what relative paths in their settings are meant from. together: they are a sweep.

    Raises: KitError where a run of that name in that folder is not over yet, here or elsewhere.
    """
    with queue.changing() as content:
        settle_in(queue, content)
        first, added = queue.free_number(content.following), list[Entry]()
        for number, run in enumerate(runs, first):
            place = (folder / path_of(run.output_dir, "output_dir")).absolute()
            entry = Entry(number, run.name, str(folder), str(place), sweep=first if together else 0)
            _refuse_twice(entry, [*content.entries, *added])
            _refuse_at_work(entry, place)
            added.append(entry)
        for entry, run in zip(added, runs, strict=True):
            _write_settings(queue, entry.number, run.toml)
        content.entries += added
        content.following = first + len(added)
    return added


def remove(queue: Queue, numbers: Sequence[int]) -> list[Entry]:
    """Take entries out; the files of their runs stay.

    Raises: KitError where there is none of that number, or it is at work.
    """
    with queue.changing() as content:
        settle_in(queue, content)
        gone = _chosen(content, numbers)
        for entry in gone:
            if entry.state == "started" and _may_work(queue, entry):
                raise KitError(
                    f"{_named(entry)} is at work.",
                    "A run that waits, rests or is over can be taken out of the queue.",
                    f"kit queue pause {entry.number} stops it, with its state kept.",
                )
        content.entries = [entry for entry in content.entries if entry not in gone]
    for entry in gone:
        shutil.rmtree(queue.place(entry.number), ignore_errors=True)
    return gone


def move(queue: Queue, number: int, position: int) -> Content:
    """Put an entry at this position of the list, from 1.

    Raises: KitError where there is none of that number, or no such position.
    """
    with queue.changing() as content:
        [entry] = _chosen(content, [number])
        if not 1 <= position <= len(content.entries):
            raise KitError(
                f"kit queue move {number} {position}: there is no such position.",
                f"The list has the positions 1 to {len(content.entries)}; they are not the "
                "numbers of the runs.",
                "kit queue shows the list.",
            )
        content.entries.remove(entry)
        content.entries.insert(position - 1, entry)
    return content


def retry(queue: Queue, numbers: Sequence[int]) -> list[Entry]:
    """Let runs wait again that stopped or failed: each goes on from the state that it kept.

    Raises: KitError where there is none of that number, or it did neither.
    """
    with queue.changing() as content:
        settle_in(queue, content)
        chosen = _chosen(content, numbers)
        for entry in chosen:
            if entry.state not in ("stopped", "failed", "paused"):
                why = {"done": "is done; kit queue add trains it once more"}
                raise KitError(
                    f"{_named(entry)} {why.get(entry.state, 'is to be made already')}.",
                    "A run that stopped, failed or is paused can be tried again.",
                    "kit queue shows the states.",
                )
        return [_anew(queue, content, entry) for entry in chosen]


def pause(queue: Queue, numbers: Sequence[int] = ()) -> list[Entry]:
    """Start nothing new; with numbers: hold these runs back, and stop those that are at work.

    What is stopped keeps its state, and goes on from there after `resume`.

    Raises: KitError where there is none of that number, or it is over.
    """
    with queue.changing() as content:
        settle_in(queue, content)
        content.paused = content.paused or not numbers
        chosen = _chosen(content, numbers)
        for entry in chosen:
            if entry.state not in ("waiting", "started", "paused"):
                raise KitError(
                    f"{_named(entry)} is over: it {_over(entry)}.",
                    "A run that waits or is at work can be paused.",
                    f"kit queue retry {entry.number} lets a run wait that stopped or failed.",
                )
        for entry in chosen:
            if entry.state == "started" and _may_work(queue, entry):
                content.put(replace(entry, then="paused"))
            else:
                content.put(replace(entry, state="paused"))
    if not is_worked_off(queue):  # whoever works it off asks them, and once
        for entry in chosen:
            if entry.state == "started" and not entry.then:
                ask_to_stop(queue.place(entry.number))
    return chosen


def resume(queue: Queue, numbers: Sequence[int] = ()) -> list[Entry]:
    """Undo `pause`, of the queue or of these runs.

    Raises: KitError where there is none of that number, or it is not paused.
    """
    with queue.changing() as content:
        settle_in(queue, content)
        if not numbers:
            content.paused = False
        chosen = _chosen(content, numbers)
        for entry in chosen:
            if entry.state == "started" and entry.then == "paused":
                content.put(replace(entry, then="waiting"))
            elif entry.state == "paused":
                _anew(queue, content, entry)
            else:
                raise KitError(
                    f"{_named(entry)} is not paused: it is {entry.state}.",
                    "kit queue resume without a number lets a paused queue go on.",
                    "kit queue shows the states.",
                )
        return chosen


def waits_as(queue: Queue, name: str, output_dir: Path) -> Entry | None:
    """The run of this name in this folder that the queue has still to begin; None without one.

    Raises: KitError where the queue cannot be read.
    """
    meant = (name, str(output_dir.absolute()))
    return next(
        (
            entry
            for entry in queue.read().entries
            if entry.state in ("waiting", "paused") and (entry.name, entry.output_dir) == meant
        ),
        None,
    )


def _may_work(queue: Queue, entry: Entry) -> bool:
    """A started run is at work, or just about to be."""
    return is_alive(queue.place(entry.number)) or is_worked_off(queue)


def ask_to_stop(place: Path) -> None:
    """Ask the run of an entry to end after its step; its starter, where it does not hear yet."""
    run_dir = run_dir_of(place)
    if run_dir is not None:
        try:
            leave(run_dir, Asked("stop"))
            return
        except KitError:
            pass
    holder = who_is_at_work_in(place) or {}
    pid = holder.get("pid")
    if isinstance(pid, int) and holder.get("host") == socket.gethostname() and os.name == "posix":
        with suppress(OSError):
            os.kill(pid, signal.SIGTERM)


def _anew(queue: Queue, content: Content, entry: Entry) -> Entry:
    """It waits: how it ended before is forgotten, and never counts for the next time."""
    for name in (RUN_DIR, ENDED):
        (queue.place(entry.number) / name).unlink(missing_ok=True)
    waits = replace(entry, state="waiting", then="", note="")
    content.put(waits)
    return waits


def _refuse_twice(entry: Entry, others: Sequence[Entry]) -> None:
    for other in others:
        same = (other.name, other.output_dir) == (entry.name, entry.output_dir)
        if same and other.state != "done":
            raise KitError(
                f"{entry.name} in {entry.output_dir} is in the queue already: {_named(other)} is "
                f"{other.state}. Nothing was added.",
                "Two runs of one name would go on with each other's state.",
                f"Give it another output_name (Model output name; --set output_name=...), or take "
                f"the other out first (Remove; kit queue remove {other.number}).",
            )


def _refuse_at_work(entry: Entry, output_dir: Path) -> None:
    """Neither the kernel nor a terminal has written into the queue what it trains."""
    found = at_work_as(output_dir, entry.name)
    if found is not None:
        run_dir, holder = found
        raise at_work_already(entry.name, run_dir, place_of(holder))


def at_work_already(name: str, run_dir: Path, where: str) -> KitError:
    """Why a run is not added that trains at this moment; where: "in this kernel" or the like."""
    called = f"{name} trains" if run_dir.stem == name else f"{name} trains as {run_dir.stem}"
    return KitError(
        f"{called} at this moment, {where} ({run_dir}). Nothing was added.",
        "After its end the queue would train it once more, as a second run beside it.",
        "Wait until it is over, or stop it, and the queue can go on with it. To train it once more "
        "all the same, give this one another output_name (Model output name; --set "
        "output_name=...).",
    )


def _write_settings(queue: Queue, number: int, toml: str) -> None:
    place = queue.place(number)
    try:
        place.mkdir(parents=True)
        file = queue.settings_file(number)
        write_atomically(file, lambda part: part.write_text(toml, "utf-8"))
    except OSError as error:
        raise OutputError(
            f"{place} cannot be written: {error.strerror or error}. Nothing was added.",
            "The queue keeps the settings of its runs there.",
            "Choose another folder with --queue, or free some space.",
        ) from error


def _chosen(content: Content, numbers: Sequence[int]) -> list[Entry]:
    by_number = {entry.number: entry for entry in content.entries}
    for number in numbers:
        if number not in by_number:
            known = ", ".join(map(str, by_number)) or "none, the queue is empty"
            raise KitError(
                f"There is no run {number} in the queue.",
                f"There are {known}.",
                "kit queue shows the list.",
            )
    return [by_number[number] for number in dict.fromkeys(numbers)]


def _named(entry: Entry) -> str:
    return f"Run {entry.number} ({entry.name})"


def _over(entry: Entry) -> str:
    return "is done" if entry.state == "done" else entry.state
