"""What is asked of a run in another process: files in its folder, and a memory of it."""

from __future__ import annotations

from pathlib import Path

from kit.control import RunControl
from kit.errors import KitError
from kit.runs.control_files import ASKS, Asked, leave

REMEMBERED = ("stop", "pause", "go-on")  # what the buttons show until the run tells it itself


class RemoteControl(RunControl):
    """Asks the training that is at work in a run's folder.

    waits: the run has only been started, and hears nothing yet; what is asked meanwhile is left by
    `deliver` once it does.
    """

    def __init__(self, run_dir: Path, *, waits: bool = False) -> None:
        super().__init__()
        self.run_dir, self.waits = run_dir, waits
        self._undelivered: list[Asked] = []

    def ask(self, asked: Asked) -> None:
        """Leave a request.

        Raises: KitError where no training is at work, or the folder cannot be written.
        """
        try:
            leave(self.run_dir, asked)
        except KitError:
            if not self.waits:
                raise
            self._undelivered.append(asked)
        if asked.what in REMEMBERED:
            ASKS[asked.what](self, asked)

    def deliver(self) -> None:
        """Leave what was asked before anybody heard."""
        while self._undelivered:
            try:
                leave(self.run_dir, self._undelivered[0])
            except KitError:
                return
            del self._undelivered[0]
