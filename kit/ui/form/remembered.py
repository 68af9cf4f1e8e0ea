"""What stood in the form last, kept on disk: a kernel that starts anew brings it back.

It lies in the host's output folder, which outlives the session where anything does: form.toml, the
settings as every program reads them, and form.json, what else the form holds - values that are
wrong as yet, the start's answers, the way back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from kit import catalog
from kit.errors import KitError, without_secrets
from kit.hosts import host
from kit.runs.atomic_write import write_atomically
from kit.settings import Settings

NAME = "form.toml"
STATE = "form.json"
VERSION = 1


def example() -> Settings:
    """The example, with its results where this host keeps them."""
    settings: Settings = catalog.load("kit.demo:settings")(str(host().output_folder))
    return settings


@cache
def example_values() -> dict[str, Any]:
    """The example's value of every setting."""
    return example().flat()


def place() -> Path:
    """Where the form is kept."""
    return host().output_folder / NAME


def remembered() -> Settings | None:
    """The settings that stood in the form last; None where there are none that can be read.

    The untouched example is no memory: until 0.1 every form opened with it.
    """
    file = place()
    try:
        found = Settings.load(file) if file.is_file() else None
    except (KitError, OSError):  # of another version, or damaged: the form opens without it
        return None
    return None if found == example() and remembered_state() is None else found


def remember(settings: Settings) -> None:
    """Keep what stands in the form; a place that cannot be written is left alone."""
    _write(place(), settings.to_toml(with_help=False))


def remembered_state() -> dict[str, Any] | None:
    """What `remember_state` kept; None where there is none that can be read."""
    try:
        state = json.loads(place().with_name(STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(state, dict) and state.get("version") == VERSION
    return state if is_ours else None


def remember_state(state: Mapping[str, Any]) -> None:
    """Keep all that the form holds; tokens of the environment are blotted out."""
    text = json.dumps({"version": VERSION, **state}, ensure_ascii=False, indent=1)
    _write(place().with_name(STATE), without_secrets(text))


def _write(file: Path, text: str) -> None:
    try:
        if file.is_file() and file.read_text("utf-8") == text:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda part: part.write_text(text, "utf-8"))
    except OSError:  # the form itself is not lost by it
        return
