"""Which settings have no effect now; the rules between settings and the catalog's rows know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kit import catalog
from kit.dataset.subsets import idle_in_each, read_subsets
from kit.errors import SettingsError
from kit.exchange.additional import with_additional
from kit.settings import Settings, declarations
from kit.settings.rules import idle_settings as idle_by_rules
from kit.ui.form.problem_texts import labelled

CLAIMS = ("v2", "sdxl")  # a wrong claim is to be seen and put right


def idle_settings(values: Mapping[str, Any], family: str = "") -> dict[str, str]:
    """Every setting without effect, and why, in the form's words.

    values: settings by name, each of which is possible. family: the base model's, "" where it is
    not known.
    """
    counted, *_ = with_additional(Settings.of(values))
    try:
        subsets = read_subsets(counted)
    except SettingsError:  # its own problems are told; which subsets there are is open
        subsets = ()
    found = idle_in_each(subsets) if subsets else idle_by_rules(counted)
    by_rules = {name: labelled(why) for name, why in found.items()}
    return {**by_rules, **dict(_of_other_families(family))}


def _of_other_families(family: str) -> Iterator[tuple[str, str]]:
    """What belongs to other base models; what names the family itself stays open."""
    for name, declared in declarations().items():
        if family and family not in declared.families and name not in CLAIMS:
            yield name, f"the base model is a {catalog.FAMILIES[family].label}"
