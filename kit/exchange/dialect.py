"""From the keys of a foreign format to settings, with a line for each key.

A format is a `Dialect`: what its keys are called here, rules for those that mean something else
there, and what else it knows. Everything that is declared as a setting is understood by that alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from kit import catalog
from kit.errors import SettingsError, nearest
from kit.exchange.coerce import as_number, fitted, is_blank, is_zero
from kit.exchange.known import REASONS, Foreign, other_families
from kit.exchange.report import Line, Verdict, shown
from kit.settings import Settings, declarations
from kit.settings.effective import unread_by
from kit.settings.extra import NAMES_A_SECRET
from kit.settings.public import SECRET

SECRET_TOLD = (
    "a secret is never taken from a file, kept or shown; set it as an environment variable or as a "
    "Colab secret"
)
# The values of the other programs that a blank stands for here.
BLANK_STANDS_FOR = MappingProxyType(
    {"lr_scheduler_num_cycles": 1, "lr_scheduler_power": 1, "lr_decay_steps": 0}
)
RATE = re.compile(r"_lr\d?$")  # a rate of 0 means that the part does not learn


@dataclass(frozen=True)
class Outcome:
    """What becomes of one key."""

    verdict: Verdict
    told: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    is_elsewhere: bool = False


Entries = Mapping[str, Any]
Rule = Callable[[Any, Entries], Outcome | None]  # None: no special case, the usual way


@dataclass(frozen=True)
class Dialect:
    """How another program spells settings."""

    label: str
    names: Mapping[str, str]  # its key: our setting
    known: Mapping[str, Foreign]
    rules: Mapping[str, Rule] = field(default_factory=lambda: MappingProxyType({}))
    # What makes the rule of a key that begins so, from the whole key; the first that fits.
    prefixes: Mapping[str, Callable[[str], Rule]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    renamed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    zero_is_unset: bool = False  # it has no blank numbers; 0 stands for them

    def rule(self, key: str) -> Rule | None:
        """The rule of a key, by its name or by how it begins; None where it is simply a setting."""
        if key in self.rules:
            return self.rules[key]
        made = (make for prefix, make in self.prefixes.items() if key.startswith(prefix))
        return next((make(key) for make in made), None)


def translate(dialect: Dialect, entries: Entries, base: Settings) -> tuple[Settings, list[Line]]:
    """The settings that come of the entries, and a line for each of them."""
    judged = [(key, value, judge(dialect, key, value, entries)) for key, value in entries.items()]
    lora_type = base.network.LoRA_type
    for _, _, outcome in judged:
        lora_type = outcome.changes.get("LoRA_type", lora_type)
    judged = [(key, value, _of_another_type(outcome, lora_type)) for key, value, outcome in judged]
    settings, judged = _applied(base, judged)
    lines = []
    for key, value, outcome in judged:
        hidden = is_secret(key, value)
        text = "" if hidden else shown(value)
        changes = dict.fromkeys(outcome.changes, "") if hidden else outcome.changes
        lines.append(Line(key, text, outcome.verdict, outcome.told, changes, outcome.is_elsewhere))
    return settings, lines


_Judged = list[tuple[str, Any, Outcome]]


def _applied(base: Settings, judged: _Judged) -> tuple[Settings, _Judged]:
    """The base with all changes; a key whose value a setting refuses is refused."""
    accepted = [outcome for *_, outcome in judged if outcome.verdict is not Verdict.REFUSED]
    changes = {name: value for outcome in accepted for name, value in outcome.changes.items()}
    try:
        return base.replace(**changes), judged
    except SettingsError:
        pass  # one by one, to know which
    settings, checked = base, []
    for key, value, outcome in judged:
        if outcome.verdict is not Verdict.REFUSED:
            try:
                settings = settings.replace(**outcome.changes)
            except SettingsError as error:
                outcome = refused(_bare(error.problems), **outcome.changes)
        checked.append((key, value, outcome))
    return settings, checked


def is_secret(key: str, value: Any) -> bool:
    """The value is a secret, or names one, and is not to be shown."""
    is_one = SECRET.search(key) or NAMES_A_SECRET.search(str(value))
    return bool(is_one) and not is_blank(value)


def judge(dialect: Dialect, key: str, value: Any, entries: Entries) -> Outcome:
    """What becomes of one key, before its value is checked."""
    if SECRET.search(key):
        return no_effect(SECRET_TOLD if not is_blank(value) else "blank, and no setting")
    if key in dialect.renamed:
        return _renamed(dialect, dialect.renamed[key], value, entries)
    rule = dialect.rule(key)
    outcome = rule(value, entries) if rule else None
    if outcome:
        return outcome
    if key in dialect.names:
        return take(dialect.names[key], value, zero_is_unset=dialect.zero_is_unset)
    return _not_ours(dialect, key, value)


def take(name: str, value: Any, *, zero_is_unset: bool = False, told: str = "") -> Outcome:
    """The key is a setting of ours; told: how it was translated, if it was."""
    declared = declarations()[name]
    new = fitted(declared, value)
    if new is None and not declared.optional:
        return translated(f"blank means {shown(declared.default)}", **{name: declared.default})
    if new is False and declared.optional:
        return translated("off: read from the model's file", **{name: None})
    if name in BLANK_STANDS_FOR and as_number(new) == BLANK_STANDS_FOR[name]:
        return Outcome(Verdict.TAKEN, "blank here", {name: None})
    if zero_is_unset and is_zero(new) and not RATE.search(name):
        low, high = declared.between or (0, 0)
        if declared.optional:
            return translated("0 means not set there", **{name: None})
        if not low <= 0 <= high:
            usual = declared.default
            return translated(f"0 is not sent there, so {shown(usual)}", **{name: usual})
    if told:
        return translated(told, **{name: new})
    return Outcome(Verdict.TAKEN, "" if _same(new, value) else f"as {shown(new)}", {name: new})


def translated(told: str, **changes: Any) -> Outcome:
    """The key means this here."""
    names = ", ".join(f"{name} = {shown(value)}" for name, value in changes.items())
    return Outcome(Verdict.TRANSLATED, f"{told}; {names}" if names else told, changes)


def no_effect(why: str) -> Outcome:
    """The key changes nothing here."""
    return Outcome(Verdict.NO_EFFECT, why)


def refused(why: str, **changes: Any) -> Outcome:
    """What the key asks for cannot be done; changes: the settings that would decide it."""
    return Outcome(Verdict.REFUSED, why, changes)


def elsewhere(why: str, **changes: Any) -> Outcome:
    """The key says that the whole file is for something that LoRA Kit does not train."""
    return Outcome(Verdict.REFUSED, why, changes, is_elsewhere=True)


def kept_from(base: Settings | None) -> dict[str, Any]:
    """What a whole recipe does not decide by leaving it out: places, and what shapes no number."""
    flat = base.flat() if base else {}
    return {name: value for name, value in flat.items() if is_kept(name)}


def is_kept(name: str) -> bool:
    """The setting is a place, or changes no number of the training."""
    return declarations()[name].type == "path" or not declarations()[name].shapes_run


def one_of(row_names: Iterable[str], value: Any) -> str | None:
    """The menu's own spelling of a name that is written in any case."""
    wanted = str(value).strip().lower()
    return next((name for name in row_names if name.lower() == wanted), None)


def _renamed(dialect: Dialect, new: str, value: Any, entries: Entries) -> Outcome:
    """A key under its old name."""
    if not is_blank(entries.get(new)):
        return no_effect(f"the old name of {new}, which is there too and counts")
    outcome = judge(dialect, new, value, {**entries, new: value})
    if outcome.verdict is not Verdict.TAKEN:
        return outcome
    return translated(f"the old name of {new}", **outcome.changes)


def _not_ours(dialect: Dialect, key: str, value: Any) -> Outcome:
    """A key that is no setting: of another family, needless, not supported, or unknown."""
    field_there = dialect.known.get(key)
    family = other_families().get(key)
    if field_there and not field_there.is_ours:
        family = " ".join(field_there.families)
    if family:
        return no_effect(f"belongs to another model family ({family})")
    if key in REASONS:
        return no_effect(REASONS[key])
    if field_there:
        if _is_off(value, field_there.default):
            return no_effect("LoRA Kit has no such setting; this value changes nothing")
        return no_effect("not supported (yet)")
    return Outcome(Verdict.UNKNOWN, _hint(dialect, key))


def _hint(dialect: Dialect, key: str) -> str:
    known = {**dialect.known, **dialect.names}
    return f"no setting of {dialect.label}{nearest(key, known)}"


def _is_off(value: Any, default: Any) -> bool:
    """A value that asks for nothing."""
    if default is True:
        return str(value).strip().lower() in ("true", "1")
    if is_blank(value) or value is False or is_zero(as_number(value)) or value == default:
        return True
    number = as_number(value)
    return number is not None and number == as_number(default)


def _of_another_type(outcome: Outcome, lora_type: str) -> Outcome:
    """What the LoRA type does not read is left alone, as the GUI's hidden fields should be."""
    is_known = isinstance(lora_type, str) and lora_type in catalog.LORA_TYPES
    if is_known and set(outcome.changes) & unread_by(lora_type):
        return no_effect(f"LoRA_type = {lora_type} does not use it")
    return outcome


def _same(new: Any, old: Any) -> bool:
    """Written alike, but for the spelling of a number."""
    if new == old or (is_blank(new) and is_blank(old)):
        return True
    number = as_number(new)
    return number is not None and number == as_number(old)


def _bare(problems: Iterable[str]) -> str:
    """Problems without the section: "[network] network_dim: 0 is ..." is "0 is ..."."""
    return "; ".join(re.sub(r"^\[\w+\] \w+: ", "", problem) for problem in problems)
