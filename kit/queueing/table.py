"""The queue as a list, and its runs as a table that compares them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kit.errors import KitError, SettingsError
from kit.queueing.outcome import is_alive, is_worked_off, numbers_of
from kit.queueing.store import Content, Entry, Queue
from kit.queueing.sweeping import differing
from kit.settings import Settings
from kit.settings.diffs import in_words


def listed(queue: Queue, content: Content) -> list[str]:
    """The list, a line for each run, and what can be done next."""
    if not content.entries:
        return ["The queue is empty: kit queue add run.toml"]
    rows = [["", "run", "name", "state", "step", "loss", "file"]]
    works = is_worked_off(queue)
    for position, entry in enumerate(content.entries, 1):
        numbers = numbers_of(queue.place(entry.number))
        steps = f"{numbers.step}/{numbers.total_steps}" if numbers.total_steps else ""
        state = _state(entry, is_broken_off=not works and not is_alive(queue.place(entry.number)))
        rows.append(
            [f"{position}.", str(entry.number), entry.name, state, steps,
             _number(numbers.loss, 4), numbers.file]
        )  # fmt: skip
    lines = aligned(rows)
    lines += [f"{entry.number}: {entry.note}" for entry in content.entries if entry.note]
    waits = any(entry.state in ("waiting", "started") for entry in content.entries)
    if content.paused:
        lines.append("It is paused: nothing new begins before kit queue resume.")
    elif waits and not works:
        lines.append("Nobody works it off: kit queue run")
    return lines


def _state(entry: Entry, *, is_broken_off: bool) -> str:
    if entry.state != "started":
        return entry.state
    if is_broken_off:
        return "broken off"
    return f"at work{entry.on_gpus}"


def compared(queue: Queue, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """A row for each run: its settings that differ among them, and what came of it."""
    settings = [_settings_of(queue, entry) for entry in entries]
    names = differing(settings)
    rows = []
    for entry, values in zip(entries, settings, strict=True):
        numbers = numbers_of(queue.place(entry.number))
        rows.append(
            {
                "run": entry.number,
                "name": entry.name,
                **{name: values.get(name) for name in names},
                "state": entry.state,
                "loss": numbers.loss,
                "validation loss": numbers.validation_loss,
                "seconds": round(numbers.seconds, 1) or None,
                "file": numbers.file or None,
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows of `compared` as lines; a column that says nothing is left out."""
    shown = [{name: _cell(value) for name, value in row.items()} for row in rows]
    names = [name for name in shown[0] if any(row[name] for row in shown)] if shown else []
    return aligned([names, *([row[name] for name in names] for row in shown)])


def newest_sweep(content: Content, numbers: Sequence[int] = ()) -> list[Entry]:
    """The runs of these numbers; without any, those of the newest sweep, or else all.

    Raises: KitError where there are none.
    """
    newest = max((entry.sweep for entry in content.entries), default=0)
    chosen = [
        entry
        for entry in content.entries
        if (entry.number in numbers if numbers else entry.sweep == newest)
    ]
    if missing := [number for number in numbers if number not in {e.number for e in chosen}]:
        raise KitError(
            f"There is no run {missing[0]} in the queue.", do="kit queue shows the list."
        )
    if not chosen:
        raise KitError(
            "The queue is empty, so there is nothing to compare.",
            "Runs are compared by their settings that differ, their loss, seconds and file.",
            "kit queue add run.toml, or kit queue sweep run.toml --set network_dim=8,16,32",
        )
    return chosen


def _settings_of(queue: Queue, entry: Entry) -> dict[str, Any]:
    try:
        return Settings.load(queue.settings_file(entry.number)).flat()
    except SettingsError:  # damaged by hand: the run's numbers are told all the same
        return {}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else in_words(value)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns side by side, two blanks between them."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
