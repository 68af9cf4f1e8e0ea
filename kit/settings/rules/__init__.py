"""Rules between settings: what contradicts is refused, what has no effect is told.

A rule is a function with `@problem`, `@notice` or `@idle` in the file of the section that its
sentences begin with; it is found there, and takes the sections that it reads. Problems stop the run
before anything is loaded, all at once; notices go into the plan. What is idle is told there, too,
and is grey in the form. Sentences come in the form's order.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache

from kit.settings import Settings
from kit.settings.rules.rule import Idle, Rule, RunLength, Sections

__all__ = [
    "Idle", "Rule", "RunLength", "every_rule", "idle_settings", "length_notices",
    "length_problems", "notices", "problems",
]  # fmt: skip


def problems(settings: Settings) -> list[str]:
    """Everything that must be changed before training."""
    return [text for rule in _chosen(stops=True, of_length=False) for text in rule(settings)]


def notices(settings: Settings) -> list[str]:
    """Everything that is accepted but has no effect, or another one than it seems."""
    changed, rules = settings.changed(), _chosen(stops=False, of_length=False)
    return [text for rule in rules for text in rule(settings, changed=changed)]


def idle_settings(sections: Sections) -> dict[str, str]:
    """Every setting that has no effect, whatever stands in it, and why, in settings' names.

    sections: those of the settings, by name; settings as a whole are that.
    """
    found: dict[str, str] = {}
    for each in (each for rule in every_rule() for each in rule.idle(sections)):
        for name in each.names:
            found.setdefault(name, each.why)
    return found


def length_problems(settings: Settings, length: RunLength) -> list[str]:
    """What the run's steps rule out."""
    rules = _chosen(stops=True, of_length=True)
    return [text for rule in rules for text in rule(settings, length)]


def length_notices(settings: Settings, length: RunLength) -> list[str]:
    """What has another effect than it seems, once the run's steps are known."""
    rules = _chosen(stops=False, of_length=True)
    return [text for rule in rules for text in rule(settings, length)]


def _chosen(*, stops: bool, of_length: bool) -> Iterator[Rule]:
    for rule in every_rule():
        if rule.stops == stops and rule.needs_length == of_length:
            yield rule


@cache
def every_rule() -> tuple[Rule, ...]:
    """All rules: sections in the form's order, within one as they stand in its file."""
    sections = list(Settings.model_fields)
    names = {module.name for module in pkgutil.iter_modules(__path__)}
    found: list[Rule] = []
    for section in (section for section in sections if section in names):
        module = importlib.import_module(f"{__name__}.{section}")
        rules = (value for value in vars(module).values() if isinstance(value, Rule))
        found += [rule for rule in rules if rule.section == section]
    return tuple(found)
