"""Rules about logging, and what its settings mean together."""

from __future__ import annotations

from collections.abc import Iterator

from kit import catalog
from kit.errors import nearest
from kit.settings import Logs
from kit.settings.effective import loggers, tracker_tables
from kit.settings.rules.rule import Idle, idle, problem


@problem
def without_logging_folder(logs: Logs) -> Iterator[str]:
    rows = [catalog.LOGGERS[name] for name in loggers(logs)]
    if not logs.logging_dir and any(row.in_folder for row in rows):
        yield (
            f"[logs] logging_dir: log_with = {logs.log_with} writes into it; name a "
            "folder, or choose another log_with"
        )


@problem
def tracker_config(logs: Logs) -> Iterator[str]:
    try:
        tables = tracker_tables(logs)
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


@problem
def log_folder_name(logs: Logs) -> Iterator[str]:
    for name in ("log_prefix", "log_tracker_name"):
        value = getattr(logs, name)
        if bad := sorted(set(value) & set('<>:"/\\|?*')):
            yield f"[logs] {name}: {value!r} names a folder; leave out {' '.join(bad)}"


@idle
def unused_log_settings(logs: Logs) -> Iterator[Idle]:
    chosen = loggers(logs)
    used = {name for logger in chosen for name in catalog.LOGGERS[logger].uses}
    every = {name for row in catalog.LOGGERS.values() for name in row.uses}
    if not logs.log_with:
        used.add("logging_dir")  # naming one is enough
    who = " and ".join(catalog.LOGGERS[logger].label for logger in chosen)
    unlogged = "the run is not logged; set logging_dir or log_with"
    why = f"the run is logged with {who}" if who else unlogged
    yield Idle(why, *sorted(every - used))
