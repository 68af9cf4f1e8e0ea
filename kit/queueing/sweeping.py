"""A sweep: all combinations of some settings' values, each a run named by what differs."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kit.errors import SettingsError
from kit.exchange.additional import with_additional
from kit.queueing.changing import New
from kit.settings import Settings, declarations
from kit.settings.rules import problems

MOST = 500  # runs of one sweep; more is a slip of the pen
LONGEST = 24  # letters of a value in a name
NAME = "output_name"


def values_in(text: str) -> list[str]:
    """`8,16,32` to its parts; one that holds a comma stands between quotes: `"512,768",1024`.

    Raises: csv.Error where a quote has no end.
    """
    [parts] = csv.reader([text], skipinitialspace=True, strict=True) if text else [[""]]
    return [part.strip() for part in parts]


def combinations(varied: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Each setting with each value of the others, the last setting's values first.

    Raises: SettingsError where a value stands twice, or there are too many.
    """
    wrong = [
        f"{name} = {value}: given twice; keep one of them"
        for name, values in varied.items()
        for value in dict.fromkeys(each for each in values if list(values).count(each) > 1)
    ]
    count = 1
    for values in varied.values():
        count *= len(values)
    if count > MOST:
        named = " x ".join(f"{name} ({len(values)})" for name, values in varied.items())
        wrong.append(f"{named}: {count} runs are too many; a sweep has at most {MOST}")
    if wrong:
        raise SettingsError(wrong)
    return [
        dict(zip(varied, chosen, strict=True)) for chosen in itertools.product(*varied.values())
    ]


def sweep(base: Mapping[str, Any], varied: Mapping[str, Sequence[str]]) -> list[Settings]:
    """The settings of all runs; base: every setting by name.

    Raises: SettingsError with everything that the settings or their rules refuse, of all runs.
    """
    made, wrong = [], dict[str, None]()
    names: set[str] = set()
    for chosen in combinations(varied):
        name = _unused(_named(str(base[NAME]), chosen), names)
        try:
            settings = checked({**base, NAME: name, **chosen})
        except SettingsError as error:
            wrong.update(dict.fromkeys(error.problems))
            continue
        names.add(name)
        made.append(settings)
    if wrong:
        raise SettingsError(wrong)
    return made


def checked(values: Mapping[str, Any]) -> Settings:
    """Settings that a training would not refuse, as far as that is known without its files.

    Raises: SettingsError with every problem at once.
    """
    settings = Settings.of(values)
    counted, wrong, _ = with_additional(settings)
    if found := [*wrong, *problems(counted)]:
        raise SettingsError(found)
    return settings


def new_of(values: Mapping[str, Any]) -> New:
    """What the queue keeps of `checked` settings; additional_parameters may name it otherwise."""
    settings = Settings.of(values)
    folders = with_additional(settings)[0].folders
    return New(folders.output_name, folders.output_dir, settings.to_toml(with_help=False))


def differing(all_values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of settings that are not the same in all of these, in the order of the form."""
    return [
        name
        for name in declarations()
        if name != NAME and len({repr(values.get(name)) for values in all_values}) > 1
    ]


def _named(base: str, chosen: Mapping[str, str]) -> str:
    if NAME in chosen:
        return chosen[NAME]
    told = [f"{name}{_plain(value)}" for name, value in chosen.items()]
    return "_".join([base, *told])


def _plain(value: str) -> str:
    """What of a value may stand in a file's name everywhere."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", value).strip("-.")[:LONGEST] or "blank"


def _unused(name: str, used: set[str]) -> str:
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in used)
