"""Settings as TOML: in, and out with the help as comments."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from kit.errors import SettingsError, Unreadable
from kit.reading import texts
from kit.settings.setting import Declared

if TYPE_CHECKING:
    from kit.settings import Settings

COMMENT_WIDTH = 96


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables.

    Raises: SettingsError where there is no such file or it is no TOML.
    """
    try:
        return texts.read_toml(path)
    except Unreadable as error:
        raise SettingsError(
            [f"{path}: {error.why}; give the path of a .toml file with settings"]
        ) from error


def to_toml(settings: Settings, *, with_help: bool) -> str:
    """All settings in their tables; a setting that is blank stands as a comment."""
    document = tomlkit.document()
    for section_name in type(settings).model_fields:
        section = getattr(settings, section_name)
        table = tomlkit.table()
        for declared in type(section).all_declared():
            _add(table, declared, getattr(section, declared.name), with_help=with_help)
        document.add(section_name, table)
    return tomlkit.dumps(document)


def _add(table: Any, declared: Declared, value: Any, *, with_help: bool) -> None:
    if with_help:
        for line in _comment(declared):
            table.add(tomlkit.comment(line))
    if value is not None:
        table.add(declared.name, value)
    elif declared.default is not None:
        table.add(declared.name, "")  # left out, it would be read as its default
    elif with_help:
        table.add(tomlkit.comment(f"{declared.name} = (blank)"))
    if with_help:
        table.add(tomlkit.nl())


def _comment(declared: Declared) -> tuple[str, ...]:
    return _wrapped(f"{declared.label}: {declared.help} [{declared.possible}]")


@functools.cache  # every run writes the same ones
def _wrapped(text: str) -> tuple[str, ...]:
    import textwrap

    lines = textwrap.wrap(text, COMMENT_WIDTH, break_long_words=False, break_on_hyphens=False)
    return tuple(lines)
