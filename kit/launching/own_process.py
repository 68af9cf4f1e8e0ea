"""`kit train` as a process of its own: it outlives who starts it, and prints into a file.

<folder>/settings.toml    what it trains
<folder>/run_dir.txt      where its run's folder is, once it has one
<folder>/log.txt          what it prints
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from kit.errors import KitError
from kit.hosts import known_secrets
from kit.launching.command import ROOT
from kit.runs.run import Answer
from kit.settings.links import handed_on

FLAGS: dict[Answer, list[str]] = {
    "ask": [],
    "go on": ["--go-on"],
    "begin anew": ["--begin-anew"],
}
LOGS_END = 20_000  # bytes that are read of a log


def command(settings: Path, told_in: Path, answer: Answer) -> list[str]:
    """What trains a file of settings."""
    words = [sys.executable, "-m", "kit", "train", str(settings), *FLAGS[answer]]
    return [*words, "--tell-folder", str(told_in)]


class OwnProcess:
    """A training that was started; its folder goes when it has ended and was `forget`."""

    def __init__(self, toml: str, answer: Answer = "ask") -> None:
        """toml: its settings; answer: what to do with an unfinished run that is made otherwise.

        Secrets that were asked for, and tokens of links, are handed on by its environment, never by
        a file.

        Raises: KitError where it cannot be started.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="lora-kit-"))
        settings, self._told_in = self.folder / "settings.toml", self.folder / "run_dir.txt"
        self._log = self.folder / "log.txt"
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
        secrets = {**known_secrets(), **handed_on()}
        environment = {**os.environ, **secrets, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        try:
            settings.write_text(toml, "utf-8")
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command(settings, self._told_in, answer),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # a kernel that ends does not end it
                )
        except OSError as error:
            self.forget()
            raise KitError(
                f"The training cannot be started as a process of its own: {error.strerror}.",
                "Several processes train outside of the notebook's kernel.",
                "Free some space, or choose one GPU to train in this kernel.",
            ) from error

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.poll()

    def run_dir(self) -> Path | None:
        """Where its run is, once it tells."""
        try:
            text = self._told_in.read_text("utf-8").strip()
        except OSError:
            return None
        return Path(text) if text else None

    def end(self) -> None:
        """Ask it to end: the first time after its step, the second time at once."""
        with suppress(OSError):
            self._process.send_signal(signal.SIGTERM)

    def last_words(self) -> str:
        """What it printed last of an error; "" where it said nothing."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - LOGS_END))
                log = file.read().decode("utf-8", errors="replace").strip()
        except OSError:
            return ""
        _, is_told, message = log.rpartition("\nkit: ")
        return message if is_told else log.rpartition("\n")[2]

    def forget(self) -> None:
        """Take its files away."""
        shutil.rmtree(self.folder, ignore_errors=True)
