"""Which settings have no effect under what the menus say; the catalog's own rows know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kit import catalog
from kit.settings import declarations

CLAIMS = ("v2", "sdxl")  # a wrong claim is to be seen and put right
SWITCHES = {"wd_on_output": "dora_wd"}  # what counts only while a switch is on
WARM_UP = ("lr_warmup", "lr_warmup_steps")


def idle_settings(values: Mapping[str, Any], family: str = "") -> dict[str, str]:
    """Every setting without effect, and why.

    values: what stands in the form; only menus and switches are read. family: the base model's,
    "" where it is not known.
    """
    return {**dict(_idle(values)), **dict(_of_other_families(family))}


def _of_other_families(family: str) -> Iterator[tuple[str, str]]:
    """What belongs to other base models; what names the family itself stays open."""
    for name, declared in declarations().items():
        if family and family not in declared.families and name not in CLAIMS:
            yield name, f"the base model is a {catalog.FAMILIES[family].label}"


def _idle(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    lora_type = catalog.LORA_TYPES[values["LoRA_type"]]
    for name in _unused(lora_type.uses, (row.uses for row in catalog.LORA_TYPES.values())):
        yield name, _reason("LoRA_type", values)
    for name, switch in SWITCHES.items():
        if name in lora_type.uses and not values[switch]:
            yield name, f"{declarations()[switch].label} is off"
    schedule = catalog.SCHEDULES[values["lr_scheduler"]]
    is_foreign = bool(values["lr_scheduler_type"].strip())
    menu = "lr_scheduler_type" if is_foreign else "lr_scheduler"
    used = ("lr_scheduler_args",) if is_foreign else schedule.uses
    for name in _unused(used, (row.uses for row in catalog.SCHEDULES.values())):
        yield name, _reason(menu, values)
    for name in WARM_UP if is_foreign or not schedule.warms_up else ():
        yield name, _reason(menu, values)
    if is_foreign:
        yield "lr_scheduler", _reason(menu, values)


def _unused(used: Iterable[str], all_uses: Iterable[Iterable[str]]) -> list[str]:
    """What some row of a menu uses, but not the chosen one."""
    return sorted({name for uses in all_uses for name in uses} - set(used))


def _reason(menu: str, values: Mapping[str, Any]) -> str:
    return f"{declarations()[menu].label} is {values[menu]}"
