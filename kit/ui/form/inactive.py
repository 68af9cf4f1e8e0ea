"""Which settings have no effect now: by the rules between settings, and of other base models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kit import catalog
from kit.dataset.subsets import Subset, idle_in_each
from kit.settings import declarations
from kit.settings.rules import idle_settings as idle_by_rules
from kit.ui.form.problem_texts import labelled

CLAIMS = ("v2", "sdxl")  # a wrong claim is to be seen and put right


def idle_settings(
    sections: Iterable[tuple[str, Any]], subsets: Sequence[Subset] = (), family: str = ""
) -> dict[str, str]:
    """Every setting without effect, and why, in the form's words.

    sections: those of the settings, by name. subsets: where a configuration of the data sets has
    some, a setting is idle that is so in each of them. family: the base model's, "" where it is not
    known.
    """
    found = idle_in_each(subsets) if subsets else idle_by_rules(sections)
    by_rules = {name: labelled(why) for name, why in found.items()}
    return {**by_rules, **dict(_of_other_families(family))}


def _of_other_families(family: str) -> Iterator[tuple[str, str]]:
    """What belongs to other base models; what names the family itself stays open."""
    for name, declared in declarations().items():
        if family and family not in declared.families and name not in CLAIMS:
            yield name, f"the base model is a {catalog.FAMILIES[family].label}"
