"""One training in a run's folder at a time: a lock that does not outlive its holder.

The kernel lets go of a lock when its process ends, however it ends. Where a file system has no
locks (some network drives), the file's own words count: process, machine, and the time it was
last touched.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from kit.errors import KitError, OutputError, Unreadable
from kit.reading.texts import from_json
from kit.runs.disk import why_unwritten

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None  # Windows

NAME = "at_work.json"
LOOKS = 10  # times, 0.05 s apart, that a lock is asked for again which nobody alive holds
STALE = 12 * 3600.0  # seconds after which another machine's word is no longer taken


Words = dict[str, Any]  # what a holder writes about itself


class Hold:
    """A run's folder that is held; `id` is this holder's alone, in all times."""

    def __init__(self, run_dir: Path, refusal: Callable[[Path, Words], KitError]) -> None:
        self.id = secrets.token_hex(8)
        self._run_dir, self._refusal = run_dir, refusal
        self._file = _held(run_dir, self.id, refusal)

    def renew(self) -> None:
        """Hold the folder again, after it was deleted and made anew.

        Raises: OutputError as `at_work_in`.
        """
        if not _is_there(self._file, self._run_dir / NAME):
            self.close()
            self._file = _held(self._run_dir, self.id, self._refusal)

    def fileno(self) -> int:
        """What a child process must be given to hold the folder as long as it lives."""
        return self._file.fileno()

    def close(self) -> None:
        """Let go of it."""
        with suppress(OSError):
            self._file.close()


def taken(run_dir: Path, holder: Words) -> OutputError:
    """Why a second training is refused."""
    who = f"process {holder['pid']}" if "pid" in holder else "another process"
    if holder.get("pid") == os.getpid():
        who = "this process, in a training that has not ended"
    where = (
        f" on {holder['host']}" if holder.get("host") not in (None, socket.gethostname()) else ""
    )
    return OutputError(
        f"A training is already at work in {run_dir} ({who}{where}).",
        "Two at once would overwrite each other's files; nothing of it was touched.",
        "Wait for it or stop it, or give this one another output_name.",
    )


@contextmanager
def at_work_in(run_dir: Path, refusal: Callable[[Path, Words], KitError] = taken) -> Iterator[Hold]:
    """Hold the folder of a run, which is made where it is not there yet.

    refusal: what is raised where another holds it; None is known of a holder that wrote nothing.

    Raises: OutputError where another training holds it, or the folder cannot be written.
    """
    hold = Hold(run_dir, refusal)
    try:
        yield hold
    finally:
        with suppress(OSError):  # while it is held, but for Windows, where an open file stays
            (run_dir / NAME).unlink()
        hold.close()
        if fcntl is None:
            with suppress(OSError):
                (run_dir / NAME).unlink()
        _leave_nothing(run_dir)


def who_is_at_work_in(run_dir: Path) -> Words | None:
    """What the holder of a folder wrote about itself; None where nobody holds it."""
    try:
        with (run_dir / NAME).open("r+", encoding="utf-8") as file:
            holder = _read(file)
            is_taken = _lock(file)  # and so held for a moment; `_hold` knows that
            return holder if is_taken or (is_taken is None and _lives(holder)) else None
    except OSError:
        return None


def _held(run_dir: Path, identity: str, refusal: Callable[[Path, Words], KitError]) -> TextIO:
    """The open file that holds the folder."""
    while True:
        file = _opened(run_dir)
        try:
            _hold(file, run_dir, identity, refusal)
            if _is_there(file, run_dir / NAME):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # its last holder has just deleted it: hold the one that others see


def _leave_nothing(run_dir: Path) -> None:
    """Take the folder away again where nothing came into it."""
    with suppress(OSError):
        run_dir.rmdir()


def _is_there(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _opened(run_dir: Path) -> TextIO:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        return (run_dir / NAME).open("a+", encoding="utf-8")
    except OSError as error:
        _leave_nothing(run_dir)
        raise OutputError(
            f"output_dir = {run_dir.parent} cannot be written: {why_unwritten(error, run_dir)}.",
            "It must be a folder in which you may create files, with free space.",
            "Choose another output_dir, or free some space.",
        ) from error


def _hold(
    file: TextIO, run_dir: Path, identity: str, refusal: Callable[[Path, Words], KitError]
) -> None:
    holder, is_taken = _read(file), _lock(file)
    for _ in range(LOOKS):
        if not is_taken or _lives(holder):
            break
        time.sleep(0.05)  # somebody looks who holds it: see `who_is_at_work_in`
        holder, is_taken = _read(file), _lock(file)
    if is_taken or (is_taken is None and _lives(holder)):
        raise refusal(run_dir, holder)
    now = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
    _write(file, {**now, "id": identity})


def _lock(file: TextIO) -> bool | None:
    """Lock the file: True where somebody else has, None where the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _lives(holder: dict[str, Any]) -> bool:
    """Whether the holder that wrote the file may still be at work."""
    pid, host, since = holder.get("pid"), holder.get("host"), holder.get("since")
    if not isinstance(pid, int) or not isinstance(since, int):
        return False
    if host != socket.gethostname():
        return time.time() - since < STALE
    import psutil  # type: ignore[import-untyped]

    return bool(psutil.pid_exists(pid))


def _read(file: TextIO) -> dict[str, Any]:
    with suppress(OSError, ValueError, Unreadable):
        file.seek(0)
        known = from_json(file.read() or "{}", NAME)
        if isinstance(known, dict):
            return known
    return {}


def _write(file: TextIO, holder: dict[str, Any]) -> None:
    with suppress(OSError):  # a full disk: the lock itself is held
        file.truncate(0)
        file.write(json.dumps(holder))
        file.flush()
