"""Additional parameters: arguments of sd-scripts that count more than the settings."""

from __future__ import annotations

from typing import Any

from kit.errors import SettingsError
from kit.exchange import command_line, repeated, sd_scripts
from kit.exchange.report import Line, Verdict, shown
from kit.settings import Settings

NAME = "additional_parameters"


def with_additional(settings: Settings) -> tuple[Settings, list[str], list[str]]:
    """The settings that count, problems, and notices that say what each argument did.

    What was understood no longer stands in additional_parameters, so that a run's own file says
    everything once.
    """
    text = settings.extra.additional_parameters.strip()
    if not text:
        return settings, [], []
    plain = settings.replace(additional_parameters="")
    try:
        entries = sd_scripts.entries_of(command_line.arguments_in(text))
        twice = repeated.lines_of(repeated.of_command(text))
    except SettingsError as error:
        return plain, [f"[extra] {NAME}: {problem}" for problem in error.problems], []
    if not entries:
        return plain, [f"[extra] {NAME}: {text!r} holds no --argument"], []
    after, lines, _ = sd_scripts.from_sd_scripts(entries, assumes_defaults=False, base=plain)
    wrong = [line for line in lines if line.verdict in (Verdict.UNKNOWN, Verdict.REFUSED)]
    problems = [f"[extra] {NAME}: {line}" for line in wrong]
    notices = [
        text
        for line in lines
        if line not in wrong
        for text in _told(line, plain.flat(), after.flat())
    ]
    notices += [f"{NAME}: {line}" for line in twice]
    return after, problems, notices


def _told(line: Line, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    if not line.changes:
        return [f"{NAME}: {line}"]
    return [
        f"{name} = {shown(new[name])} from {NAME} counts, not {shown(old[name])}"
        for name in line.changes
        if new[name] != old[name]
    ]
