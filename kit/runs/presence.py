"""A run's folder while the run is at work: made again where somebody deletes it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from kit.errors import OutputError
from kit.events import Event, Sampled, Saved
from kit.runs.atomic_write import write_atomically
from kit.runs.lock import Hold
from kit.runs.run import Run

SETTINGS_FILE = "run.toml"


class Presence:
    """Looks whether the folder is there still, and knows what was written."""

    def __init__(self, run: Run, settings_toml: str, hold: Hold) -> None:
        self.run, self.settings_toml, self._hold = run, settings_toml, hold
        self._written: dict[Path, str] = {}

    def note(self, event: Event) -> None:
        """Remember a file that was written, to tell of it if it is gone."""
        if isinstance(event, Saved | Sampled):
            kind = "LoRA file" if isinstance(event, Saved) else "sample picture"
            self._written[Path(event.path)] = kind
            for path in getattr(event, "removed", ()):
                self._written.pop(Path(path), None)

    def made_again(self) -> str:
        """What happened, where the folder is gone, after it was made again; otherwise "".

        Its settings are written anew and it is held again; the state is the caller's to keep.

        Raises: OutputError where it cannot be made.
        """
        file = self.run.dir / SETTINGS_FILE
        try:
            file.stat()
            return ""
        except FileNotFoundError:
            pass
        except OSError:  # a storage that does not answer now; writing will tell
            return ""
        try:
            self.run.dir.mkdir(parents=True, exist_ok=True)
            write_atomically(file, lambda part: part.write_text(self.settings_toml, "utf-8"))
        except OSError as error:
            raise OutputError(
                f"{self.run.dir} was deleted while the run was at work, and cannot be made again: "
                f"{error.strerror or error}.",
                "It needs a folder in which you may create files, with free space.",
                "Bring the folder or its drive back, or choose another output_dir.",
            ) from error
        self._hold.renew()
        return (
            f"{self.run.dir} was deleted while the run was at work. It is made again, with the "
            f"settings, the events and the state; gone is {self._gone()}"
        )

    def _gone(self) -> str:
        gone = {path: kind for path, kind in self._written.items() if not path.exists()}
        for path in gone:
            del self._written[path]
        counted = Counter(gone.values())
        named = [f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in counted.items()]
        return " and ".join(named) or "nothing else that this session wrote"
