"""The process that starts a training in several processes, and waits for its end.

It asks for a stop as a person would, by a file in the run's folder, which all processes obey at the
same step. Signals are the second way: torchrun passes them on to each process by itself, and ends
what has not ended after 30 seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kit.control import RunControl
from kit.errors import KitError
from kit.launching.last_words import LastWord, last_word_of, state_of
from kit.runs.control_files import Asked, leave
from kit.runs.lock import who_is_at_work_in

PERIOD = 0.2  # seconds between two looks
# After the launcher itself was killed, its processes live on: so long they may take to notice.
PATIENCE = 60.0


@dataclass
class Parent:
    """One launch: start it, `wait`, and ask how it ended.

    run_dir: tells where the run works, as soon as that is known.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    run_dir: Callable[[], Path | None]
    control: RunControl = field(default_factory=RunControl)

    def wait(self) -> LastWord:
        """Start the processes, and come back when all of them have ended.

        The first Ctrl-C or SIGTERM, which `control` has heard, asks the run to stop after its step;
        the second ends the processes, the third at once.

        Raises: KitError where it cannot be started.
        """
        before = state_of(self.run_dir())
        process = self._started()
        interrupts, is_asked = 0, False
        while process.poll() is None:
            try:
                if self.control.stop_requested and not is_asked:
                    is_asked = self._ask_to_stop()
                time.sleep(PERIOD)
            except KeyboardInterrupt:
                interrupts += 1
                _end(process, at_once=interrupts > 1)
        code = process.wait()
        self._wait_for_the_others()
        return last_word_of(self.run_dir(), before, code)

    def _started(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for this process, which passes it on once
                close_fds=os.name != "posix",  # what a queue holds is held by them, too
            )
        except OSError as error:
            raise KitError(
                f"The processes cannot be started: {error.strerror or error}.",
                "accelerate launch starts them, which comes with LoRA Kit.",
                "Set num_processes = 1 to train in this process.",
            ) from error

    def _ask_to_stop(self) -> bool:
        """Whether the run was asked; as long as it only loads, nobody hears."""
        run_dir = self.run_dir()
        if run_dir is None:
            return False
        try:
            leave(run_dir, Asked("stop"))
        except KitError:
            return False
        return True

    def _wait_for_the_others(self) -> None:
        """A launcher that was killed leaves its processes behind."""
        run_dir, until = self.run_dir(), time.monotonic() + PATIENCE
        while run_dir is not None and who_is_at_work_in(run_dir) is not None:
            if time.monotonic() > until:
                return
            time.sleep(PERIOD)


def _end(process: subprocess.Popen[bytes], *, at_once: bool) -> None:
    with suppress(OSError):
        if at_once:
            process.kill()
        else:
            process.send_signal(signal.SIGTERM)
