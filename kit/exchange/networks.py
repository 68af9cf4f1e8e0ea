"""LoRA types and what sd-scripts calls them: a network module and its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from kit import catalog
from kit.exchange.known import Foreign, gui_fields, network_args, other_families
from kit.settings import Settings, declarations
from kit.settings.effective import unread_by

LYCORIS = "lycoris.kohya"
# Other words for the rows' algorithms.
ALGORITHM_NAMES = {"": "locon", "lora": "locon", "oft": "diag-oft", "diag_oft": "diag-oft"}
# One field of the GUI, which goes by another name in each of the two.
KOHYA_ONLY, LYCORIS_ONLY = "unit", "block_size"
DROPOUT = "dropout"  # what the trainer adds to a network's arguments by itself


def kind_of(module: str, arguments: Mapping[str, Any]) -> str | None:
    """The LoRA type of a module with its arguments, in the GUI's words; None where it has none."""
    module = module.strip()
    rows = {n: row for n, row in catalog.LORA_TYPES.items() if row.network_module == module}
    if module == LYCORIS:
        asked = str(arguments.get("algo", "")).strip().lower()
        algorithm = ALGORITHM_NAMES.get(asked, asked)
        return next((name for name, row in rows.items() if row.algorithm == algorithm), None)
    everywhere = _asks_for_convolutions(arguments)
    fitting = (name for name, row in rows.items() if row.adapts_convolutions == everywhere)
    return next(iter([*fitting, *rows]), None)


def _asks_for_convolutions(arguments: Mapping[str, Any]) -> bool:
    return str(arguments.get("conv_dim", "")).strip() not in ("", "0", "None") or bool(
        arguments.get("conv_block_dims")
    )


def module_of(lora_type: str) -> tuple[str, dict[str, str]]:
    """The module of a LoRA type, and the arguments that choose it there."""
    row = catalog.LORA_TYPES[lora_type]
    return row.network_module, {"algo": row.algorithm} if row.algorithm else {}


@cache
def setting_of(argument: str) -> str | None:
    """The setting that an argument of a network is; None where there is none."""
    if argument == DROPOUT:
        return "network_dropout"
    key = network_args().get(argument, argument)
    names = (d.name for d in declarations().values() if key in (d.name, d.gui_key))
    return next(names, argument if argument in declarations() else None)


def known_arguments(prefix: str) -> dict[str, Foreign]:
    """What any trainer's network takes, by name behind a prefix."""
    ours = {argument: gui_fields()[key] for argument, key in network_args().items()}
    others = {
        name: Foreign(name, "str", "", tuple(families.split()), is_ours=False)
        for name, families in other_families().items()
    }
    return {f"{prefix}{name}": field for name, field in {**others, **ours}.items()}


def arguments_of(settings: Settings) -> dict[str, str]:
    """What must stand in network_args, as texts without blanks.

    A switch is written only where it is on: LyCORIS reads "False" as yes in places.
    """
    lora_type = settings.network.LoRA_type
    module, written = module_of(lora_type)
    foreign = KOHYA_ONLY if module == LYCORIS else LYCORIS_ONLY
    flat, unread = settings.flat(), unread_by(lora_type)
    for argument in network_args():
        name = setting_of(argument)
        if name is None or name in unread or argument == foreign:
            continue
        value = _written(argument, name, flat)
        if value is not None:
            written[argument] = value
    if "dora_wd" in written:  # LyCORIS' own default changed on 2025-04-14, so both are named
        written["wd_on_output"] = str(settings.network.wd_on_output)
    return written


def _written(argument: str, name: str, flat: Mapping[str, Any]) -> str | None:
    value = flat[name]
    if value is None and name == "conv_dim":
        value = flat["network_dim"]  # blank means the same
    if isinstance(value, bool):
        usual = gui_fields()[network_args()[argument]].default
        return "True" if value else "False" if usual else None
    if not value:
        return None
    return f"{value:.9g}" if isinstance(value, float) else "".join(str(value).split())
