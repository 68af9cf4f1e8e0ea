"""A run's files, copied to where they are kept while it works elsewhere.

On Colab the output folder lies on Google Drive: kept, but slow, and sometimes not answering. So the
run works on the machine's own disk, and a thread copies what is new: each copy is read back and
compared, and tried again until it is whole. Copies are written beside their place and renamed, so
that what is kept is always whole, and the state comes before the record that tells of it.
"""

from __future__ import annotations

import contextvars
import hashlib
import os
import queue
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kit.events import Noticed
from kit.processes.places import FOLDER as SIGNS
from kit.runs import control_files, lock
from kit.runs.atomic_write import write_atomically
from kit.runs.run import Run
from kit.runs.state_files import BEFORE, FOLDER, STATE_FILE, before, replace_state

SECONDS_BETWEEN_LOOKS = 5.0
SECONDS_BETWEEN_STATES = 60.0  # a lost session costs at most this much, and one copy's time
LAST_TRIES = 5
BLOCK = 1 << 22

Stamp = tuple[int, int]  # time of change and size


@contextmanager
def mirrored(run: Run) -> Iterator[Mirror]:
    """Copy in the background what the run writes; at the end wait until all of it is copied.

    Without a home there is nothing to do.
    """
    mirror = Mirror(run)
    mirror.start()
    try:
        yield mirror
    finally:
        mirror.finish()


# The copies keep a state before of their own; lock and requests are for where the run works.
LEFT = (BEFORE, lock.NAME)
LEFT_FOLDERS = (control_files.FOLDER, SIGNS)  # SIGNS: a cache of several processes lies there, too


class Mirror:
    """Looks for new files of a run and copies them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._copied: dict[Path, Stamp] = {}
        self._copied_record = ""
        self._dropped: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._failing: dict[Path, str] = {}
        self._told = False
        self._states_copied_at = float("-inf")
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to copy in a thread of its own."""
        if self.run.home is None:
            return
        work = contextvars.copy_context().run
        self._thread = threading.Thread(
            target=work, args=(self._work,), name="kit-mirror", daemon=True
        )
        self._thread.start()

    def finish(self) -> None:
        """Copy what is left, and stop. What cannot be copied is told by `notices`."""
        if self.run.home is None:
            return
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        for attempt in range(LAST_TRIES):
            self.copy_new(last=True)
            if not self._failing:
                return
            time.sleep(min(2.0**attempt, 20))

    def notices(self) -> Iterator[Noticed]:
        """Copies that do not succeed, told once until they do."""
        if not self._failing:
            self._told = False
        elif not self._told:
            self._told = True
            name, reason = next(iter(self._failing.items()))
            yield Noticed(
                f"{len(self._failing)} files are not yet copied to {self.run.home} ({name.name}: "
                f"{reason}). They lie in {self.run.output_dir}; it is tried again and again"
            )

    def _work(self) -> None:
        pause = SECONDS_BETWEEN_LOOKS
        while not self._ending.wait(pause):
            self.copy_new()
            # A storage that does not answer is asked less and less often.
            pause = min(pause * 2, 60) if self._failing else SECONDS_BETWEEN_LOOKS

    def copy_new(self, *, last: bool = False) -> None:
        """Copy every file that is new or changed, remove copies of those that are gone.

        The record is copied last, as it was at first: what it tells of is there by then.
        """
        assert self.run.home is not None
        if _is_gone(self.run.home / self.run.dir.name):
            self._copied.clear()  # the first look, or somebody deleted the copies
            self._copied_record = ""
        state_due = time.monotonic() - self._states_copied_at >= SECONDS_BETWEEN_STATES
        record = self._record_now()
        for path in self._files(with_state=last or state_due):
            self._copy(path)
        if record and (last or state_due) and self.run.own_state / STATE_FILE not in self._failing:
            self._copy_record(record)
        self._remove_gone()
        if state_due:
            self._states_copied_at = time.monotonic()

    def drop(self, paths: Iterable[str]) -> None:
        """The run has replaced these: their copies go, also those of an earlier session."""
        for path in paths:
            self._dropped.put(Path(path))

    def _remove_gone(self) -> None:
        """Remove copies of what is no longer there."""
        assert self.run.home is not None
        is_whole = not _is_gone(self.run.dir)  # else somebody deleted the work: copies are kept
        gone = [path for path in self._copied if is_whole and not path.exists()]
        while not self._dropped.empty():
            gone.append(self._dropped.get())
        for path in gone:
            is_state = path.parent == self.run.own_state
            if path.exists() or (is_state and path.parent.exists()):
                continue  # made again, or between two renames
            try:
                self._remove(self.run.home / path.relative_to(self.run.output_dir))
            except OSError:
                self._dropped.put(path)  # a storage that does not answer
            self._copied.pop(path, None)

    def _remove(self, copy: Path) -> None:
        if copy.is_dir():
            shutil.rmtree(copy)
        else:
            copy.unlink(missing_ok=True)
        if copy.name == STATE_FILE:
            before(copy).unlink(missing_ok=True)
        if self.run.owns_state(copy.parent.name) and not any(copy.parent.iterdir()):
            copy.parent.rmdir()

    def _files(self, *, with_state: bool) -> Iterator[Path]:
        """What belongs to the run: LoRA files first, then samples, then its folder."""
        run = self.run
        if run.output_dir.is_dir():
            listed = sorted(run.output_dir.iterdir())
            yield from (path for path in listed if run.owns(path.name))
            for folder in (path for path in listed if run.owns_state(path.name)):
                yield from sorted(path for path in folder.iterdir() if path.is_file())
        if run.sample_dir.is_dir():
            yield from sorted(run.sample_dir.glob(f"{run.name}_*"))
        for path in sorted(run.dir.rglob("*")) if run.dir.is_dir() else ():
            is_state = path.parent != run.dir
            if path == run.dir / "run.json" or path.name in LEFT:  # the record comes last
                continue
            if path.relative_to(run.dir).parts[0] in LEFT_FOLDERS:
                continue
            if path.is_file() and (with_state or not is_state):
                yield path

    def _record_now(self) -> str:
        try:
            return (self.run.dir / "run.json").read_text("utf-8")
        except OSError:
            return ""  # there is none yet

    def _copy_record(self, text: str) -> None:
        assert self.run.home is not None
        record, copy = self.run.dir / "run.json", self.run.home / self.run.dir.name / "run.json"
        if text == self._copied_record:
            return
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(copy, lambda part: part.write_text(text, "utf-8"))
        except OSError as error:
            self._failing[record] = error.strerror or str(error)
        else:
            self._copied_record = text
            self._failing.pop(record, None)

    def _copy(self, path: Path) -> None:
        if path.suffix == ".part" or self.run.home is None:
            return
        try:
            stat = path.stat()
            stamp = stat.st_mtime_ns, stat.st_size
            if self._copied.get(path) == stamp:
                return
            copy_whole(path, self.run.home / path.relative_to(self.run.output_dir))
        except FileNotFoundError:
            return  # replaced or removed just now; the next look sees what has become of it
        except OSError as error:
            self._failing[path] = error.strerror or str(error)
        else:
            self._copied[path] = stamp
            self._failing.pop(path, None)


def _is_gone(folder: Path) -> bool:
    """A storage that does not answer is not known to have lost it."""
    try:
        folder.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file, read the copy back, and put it in its place only if it is the same.

    Of a run's own state the copy of before stays beside the new one.

    Raises: OSError where it cannot be written, or reads back otherwise.
    """
    target.parent.mkdir(parents=True, exist_ok=True)

    def write(part: Path) -> None:
        digest = hashlib.sha256()
        with source.open("rb") as file, part.open("wb") as copy:
            while block := file.read(BLOCK):
                digest.update(block)
                copy.write(block)
            copy.flush()
            os.fsync(copy.fileno())
        with part.open("rb") as copy:
            if hashlib.file_digest(copy, "sha256").digest() != digest.digest():
                raise OSError(f"{part.name} reads back otherwise than it was written")

    is_state = (target.parent.name, target.name) == (FOLDER, STATE_FILE)
    (replace_state if is_state else write_atomically)(target, write)
