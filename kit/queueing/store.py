"""The queue's record: entries in their order, changed by one process at a time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from kit.errors import KitError, OutputError, Unreadable
from kit.reading.fields import Table, dataclass_from
from kit.reading.paths import path_of
from kit.reading.texts import read_json
from kit.runs.atomic_write import write_atomically
from kit.runs.lock import Words, at_work_in

State: TypeAlias = Literal["waiting", "started", "paused", "stopped", "done", "failed"]
STATES: tuple[State, ...] = ("waiting", "started", "paused", "stopped", "done", "failed")
VARIABLE = "LORA_KIT_QUEUE"  # names another folder
USUAL = "~/.lora-kit/queue"
LONGEST_NUMBER = 10  # digits
PATIENCE = 20.0  # seconds that a change waits for another one


@dataclass(frozen=True)
class Entry:
    """One run of the queue.

    folder: where it was added; what its settings say of paths is meant from there. output_dir:
    whole, to know runs of one name. gpu: those it was started on, as "0" or "0,1"; "" for whatever
    the settings say. then: what becomes of it once it has stopped as it was asked to: "waiting" or
    "paused". note: why it failed. sweep: the number of the first run that was made together with
    it, or 0.
    """

    number: int
    name: str
    folder: str
    output_dir: str
    state: str = "waiting"
    gpu: str = ""
    then: str = ""
    note: str = ""
    sweep: int = 0

    @property
    def gpus(self) -> list[str]:
        """Those it was started on, one by one; one without a name where the settings say it."""
        return self.gpu.split(",")

    @property
    def on_gpus(self) -> str:
        """The same in words, as " on GPU 0" or " on GPUs 0 and 1"; "" where the settings say it."""
        *first, last = self.gpus
        if not self.gpu:
            return ""
        return f" on GPUs {', '.join(first)} and {last}" if first else f" on GPU {last}"


@dataclass
class Content:
    """What stands in the record; paused: nothing new is started."""

    entries: list[Entry] = field(default_factory=list)
    following: int = 1  # the number that the next entry gets
    paused: bool = False

    def put(self, entry: Entry) -> None:
        """The entry of this number is now this one."""
        places = [n for n, each in enumerate(self.entries) if each.number == entry.number]
        self.entries[places[0]] = entry


class Queue:
    """A queue in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "queue.json"

    def place(self, number: int) -> Path:
        """The folder of one entry."""
        return self.folder / "runs" / str(number)

    def free_number(self, following: int) -> int:
        """A number from this one on, beyond all that have a folder: nothing there is overwritten.

        A record that was moved away, being damaged, leaves the folders of its runs.
        """
        try:
            names = [each.name for each in (self.folder / "runs").iterdir()]
        except OSError:
            names = []
        taken = (int(name) for name in names if name.isdecimal() and len(name) < LONGEST_NUMBER)
        return max(following, *(number + 1 for number in taken), 1)

    def settings_file(self, number: int) -> Path:
        """The settings of one entry."""
        return self.place(number) / "settings.toml"

    def read(self) -> Content:
        """What stands in it now; an empty one where there is none yet.

        Raises: KitError where its record is damaged.
        """
        if not self._file.exists():
            return Content()
        try:
            record = Table(read_json(self._file), self._file)
            entries = record.values.get("entries")
            if not isinstance(entries, list):
                raise Unreadable(self._file, "has no list of entries")
            found = [dataclass_from(Entry, each, self._file) for each in entries]
            if wrong := [each.state for each in found if each.state not in STATES]:
                raise Unreadable(self._file, f"has the unknown state {wrong[0][:40]!r}")
            return Content(found, record.whole("following", least=1), record.flag("paused"))
        except Unreadable as error:
            raise KitError(
                f"The queue cannot be read: {error.what} {error.why}.",
                f"Settings and logs of its runs lie in {self.folder / 'runs'}; the runs themselves "
                "lie in their output folders, untouched.",
                f"Move {self._file} away, and add the runs again, where they were added first: "
                f"kit queue add {self.folder / 'runs'}/*/settings.toml",
            ) from error

    @contextmanager
    def changing(self) -> Iterator[Content]:
        """What stands in it, to be changed: nobody else changes it meanwhile.

        It is written at the end of the block, unless that raises.

        Raises: OutputError where it cannot be written; KitError where it cannot be read.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritten(error) from error
        with ExitStack() as stack:
            self._lock(stack)
            content = self.read()
            before = _text(content)
            yield content
            if (text := _text(content)) == before:
                return
            try:
                write_atomically(self._file, lambda part: part.write_text(text, "utf-8"))
            except OSError as error:
                raise self._unwritten(error) from error

    def _lock(self, stack: ExitStack) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                stack.enter_context(at_work_in(self.folder / "changing", _busy))
                return
            except KitError:  # another one changes it, or has just ended
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def _unwritten(self, error: OSError) -> OutputError:
        return OutputError(
            f"The queue's folder {self.folder} cannot be written: {error.strerror or error}.",
            "It must be a folder in which you may create files, with free space.",
            f"Choose another with --queue FOLDER or {VARIABLE}, or free some space.",
        )


def queue_in(text: str | Path = "") -> Queue:
    """The queue in this folder; "" means the one that LORA_KIT_QUEUE names, or the usual one.

    Raises: Unreadable where that is no path.
    """
    named = str(text).strip() or os.environ.get(VARIABLE, "").strip() or USUAL
    return Queue(path_of(named, "--queue").absolute())


def _text(content: Content) -> str:
    record = {
        "entries": [asdict(entry) for entry in content.entries],
        "following": content.following,
        "paused": content.paused,
    }
    return json.dumps(record, indent=1)


def _busy(folder: Path, holder: Words) -> KitError:
    return KitError(
        f"The queue in {folder.parent} is being changed by process {holder.get('pid', '?')}.",
        f"A change takes less than a second; this one has taken {PATIENCE:.0f} s.",
        "Try again; end that process if it hangs.",
    )
