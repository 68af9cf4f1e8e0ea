"""What stood in the form last, kept on disk: a kernel that starts anew brings it back.

It lies in the host's output folder, which outlives the session where anything does.
"""

from __future__ import annotations

from pathlib import Path

from kit import catalog
from kit.errors import KitError
from kit.hosts import host
from kit.runs.run import write_atomically
from kit.settings import Settings

NAME = "form.toml"


def example() -> Settings:
    """The example, with its results where this host keeps them."""
    settings: Settings = catalog.load("kit.demo:settings")(str(host().output_folder))
    return settings


def place() -> Path:
    """Where the form is kept."""
    return host().output_folder / NAME


def remembered() -> Settings | None:
    """The settings that stood in the form last; None where there are none that can be read."""
    file = place()
    try:
        return Settings.load(file) if file.is_file() else None
    except (KitError, OSError):  # of another version, or damaged: the form opens without it
        return None


def remember(settings: Settings) -> None:
    """Keep what stands in the form; a place that cannot be written is left alone."""
    file = place()
    text = settings.to_toml(with_help=False)
    try:
        if file.is_file() and file.read_text("utf-8") == text:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda part: part.write_text(text, "utf-8"))
    except OSError:  # the form itself is not lost by it
        return
