"""One case: an input in a folder, read under a watch."""

import hashlib
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from kit.errors import KitError

MOST_SECONDS = 10.0
OUT = "out"  # the one folder of a case into which a reader may write
KIT = str(Path(__file__).parents[2] / "kit")


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    reader: str
    number: int
    seconds: float
    refused: bool = False  # with a KitError
    fault: str = ""  # what must not be

    @property
    def name(self):
        return f"{self.reader}:{self.number}"


class TooLong(BaseException):
    """Raised by the watch; nobody catches it as an Exception."""


def run_case(reader, make, number, folder, *, seed=0):
    """Read the input that `make` writes for this number; the folder is emptied before and after."""
    rng = random.Random(f"{seed} {reader} {number}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    read = make(rng, folder)
    before = _states(folder)
    began = time.monotonic()
    fault, refused = "", False
    try:
        with _watched(), _silent():
            read()
    except KitError as error:
        refused = True
        fault = "a KitError without a message" if not str(error).strip() else ""
    except TooLong:
        fault = f"not done after {MOST_SECONDS:.0f} s: {_place()}"
    except Exception as error:
        fault = f"{type(error).__name__} at {_place()}: {str(error)[:160]!r}"
    seconds = time.monotonic() - began
    if not fault and (changed := _changed(before, _states(folder))):
        fault = f"files changed: {', '.join(changed[:5])}"
    shutil.rmtree(folder, ignore_errors=True)
    return Outcome(reader, number, seconds, refused, fault)


def _place():
    """The innermost frame of ours, and what it called."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    own = [frame for frame in frames if frame.filename.startswith(KIT)]
    frame = (own or frames)[-1]
    return f"{os.path.relpath(frame.filename, Path(KIT).parent)}:{frame.lineno} ({frame.name})"


@contextmanager
def _watched():
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _silent():
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module="PIL")  # of tags; pictures are judged by us
        yield


def _states(folder):
    """Every file but those of OUT, with its hash."""
    out = os.fsencode(folder / OUT)
    found = {}
    for root, _, names in os.walk(os.fsencode(folder)):
        if root.startswith(out):
            continue
        for name in names:
            path = Path(os.fsdecode(root)) / os.fsdecode(name)
            found[str(path)] = hashlib.sha256(path.read_bytes()).digest()
    return found


def _changed(before, after):
    return sorted(
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )
