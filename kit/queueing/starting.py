"""Runs one command and writes down how it ended: `-m kit.queueing.starting PLACE FOLDER COMMAND`.

It stands between the queue and the run, so that an exit code is kept even where the queue's process
is killed meanwhile. Its place is held as long as it or the command lives; a second one for the same
place does nothing, and so a run is never started twice, whoever is killed when.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from kit.errors import KitError
from kit.runs.atomic_write import write_atomically
from kit.runs.lock import Hold, Words, at_work_in

ENDED = "ended.json"
NOT_STARTED = 127  # as shells say it


def main(arguments: Sequence[str]) -> int:
    """Run what stands behind PLACE and FOLDER, in that folder."""
    place, folder, *command = arguments
    try:
        with at_work_in(Path(place), _elsewhere) as hold:
            if (Path(place) / ENDED).exists():  # another starter was faster, and is through
                return 0
            began = time.monotonic()
            code = _run(command, folder, hold)
            text = json.dumps({"code": code, "seconds": round(time.monotonic() - began, 1)})
            write_atomically(Path(place) / ENDED, lambda part: part.write_text(text, "utf-8"))
    except KitError as error:
        print(f"kit: {error}", file=sys.stderr)
        return 0
    return 0


def _run(command: Sequence[str], folder: str, hold: Hold) -> int:
    """The command's exit code; a polite signal is passed on to it."""
    kept = (hold.fileno(),) if os.name == "posix" else ()
    started: list[subprocess.Popen[bytes]] = []
    waiting: list[int] = []  # signals that came before there was anybody to pass them on to

    def pass_on(number: int, frame: FrameType | None) -> None:
        if started:
            started[0].send_signal(number)
        else:
            waiting.append(number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), pass_on)
    try:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, pass_fds=kept)
    except OSError as error:
        print(f"kit: it cannot be started in {folder}: {error.strerror}", file=sys.stderr)
        return NOT_STARTED
    started.append(process)
    for number in waiting:
        process.send_signal(number)
    return process.wait()


def _elsewhere(place: Path, holder: Words) -> KitError:
    return KitError(f"The run of {place} is at work already (process {holder.get('pid', '?')}).")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
