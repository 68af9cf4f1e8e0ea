"""Which settings have no effect under what the menus say; the catalog's own rows know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kit import catalog
from kit.settings import declarations

WARM_UP = ("lr_warmup", "lr_warmup_steps")


def idle_settings(values: Mapping[str, Any]) -> dict[str, str]:
    """Every setting without effect, and why.

    values: what stands in the form; only the menus are read.
    """
    return dict(_idle(values))


def _idle(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kind = catalog.KINDS[values["LoRA_type"]]
    for name in _unused(kind.uses, (row.uses for row in catalog.KINDS.values())):
        yield name, _reason("LoRA_type", values)
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
