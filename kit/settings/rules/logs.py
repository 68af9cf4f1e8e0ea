"""Rules about logging, and what its settings mean together."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import catalog
from kit.errors import nearest

if TYPE_CHECKING:
    from kit.settings import Settings

PROJECT = "network_train"  # as in the reference, so that curves of both stand side by side


def loggers(settings: Settings) -> tuple[str, ...]:
    """The rows of the catalog that get the curves."""
    logs = settings.logs
    if logs.log_with == catalog.ALL_LOGGERS:
        return tuple(catalog.LOGGERS)
    if logs.log_with:
        return (logs.log_with,)
    return tuple(n for n, row in catalog.LOGGERS.items() if row.in_folder and logs.logging_dir)


def project(settings: Settings) -> str:
    """The tracker's name."""
    return settings.logs.log_tracker_name.strip() or PROJECT


def tracker_options(settings: Settings, logger: str) -> dict[str, Any]:
    """The logger's table in log_tracker_config.

    Raises: ValueError where the file cannot be read.
    """
    return tracker_tables(settings).get(logger, {})


def tracker_tables(settings: Settings) -> dict[str, dict[str, Any]]:
    """The tables of log_tracker_config by logger.

    Raises: ValueError where the file cannot be read.
    """
    named = settings.logs.log_tracker_config.strip()
    if not named:
        return {}
    path = Path(named).expanduser()
    read = json.loads if path.suffix.lower() == ".json" else tomllib.loads
    try:
        tables: Any = read(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise ValueError(f"{path} holds options outside of a table; write [wandb] above them")
    return tables


def _without_logging_folder(settings: Settings) -> Iterator[str]:
    rows = [catalog.LOGGERS[name] for name in loggers(settings)]
    if not settings.logs.logging_dir and any(row.in_folder for row in rows):
        yield (
            f"[logs] logging_dir: log_with = {settings.logs.log_with} writes into it; name a "
            "folder, or choose another log_with"
        )


def _tracker_config(settings: Settings) -> Iterator[str]:
    try:
        tables = tracker_tables(settings)
    except ValueError as error:
        yield f"[logs] log_tracker_config: {error}"
        return
    for name, options in tables.items():
        row = catalog.LOGGERS.get(name)
        if row is None:
            known = " and ".join(f"[{logger}]" for logger in catalog.LOGGERS)
            yield f"[logs] log_tracker_config: there is no logger [{name}]; there are {known}"
            continue
        for option in options:
            if option not in row.options:
                yield (
                    f"[logs] log_tracker_config: [{name}] takes no {option}"
                    f"{nearest(option, row.options)}; it takes {', '.join(row.options)}"
                )


def _log_folder_name(settings: Settings) -> Iterator[str]:
    for name in ("log_prefix", "log_tracker_name"):
        value = getattr(settings.logs, name)
        if bad := sorted(set(value) & set('<>:"/\\|?*')):
            yield f"[logs] {name}: {value!r} names a folder; leave out {' '.join(bad)}"


def _unused_log_settings(settings: Settings) -> Iterator[str]:
    changed, chosen = settings.changed(), loggers(settings)
    used = {name for logger in chosen for name in catalog.LOGGERS[logger].uses}
    every = {name for row in catalog.LOGGERS.values() for name in row.uses}
    who = " and ".join(catalog.LOGGERS[logger].label for logger in chosen)
    for name in sorted(every - used):
        if name in changed:
            yield f"{name} has no effect: " + (
                f"the run is logged with {who}"
                if who
                else "the run is not logged; set logging_dir or log_with"
            )


PROBLEMS = (_without_logging_folder, _tracker_config, _log_folder_name)
NOTICES = (_unused_log_settings,)
