"""Rules about LoRA files and states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kit import catalog
from kit.catalog import readers

if TYPE_CHECKING:
    from kit.settings import Settings


def _idle_states(settings: Settings) -> Iterator[str]:
    saving = settings.saving
    for name in ("save_last_n_epochs_state", "save_last_n_steps_state"):
        if getattr(saving, name) and not saving.save_state:
            yield f"{name} has no effect: save_state is off"
    if saving.save_state and saving.save_state_on_train_end:
        yield "save_state_on_train_end has no effect: save_state keeps one at the end, too"


def _two_starts(settings: Settings) -> Iterator[str]:
    if settings.saving.resume.strip() and settings.network.network_weights:
        yield "network_weights has no effect: the weights of the state in resume take their place"


def _bf16_of_other_formulas(settings: Settings) -> Iterator[str]:
    """Measured: a LoKr in bf16 is 2.5 % off (median), up to 14 %: the base is cast to it."""
    lora_type = settings.network.LoRA_type
    row = catalog.LORA_TYPES[lora_type]
    reads = row.read_by.a1111 != readers.NOT and row.read_by != readers.EVERYWHERE
    if settings.saving.save_precision == "bf16" and reads:
        yield (
            f"save_precision = bf16: A1111 rounds the base model's layers to the type of a "
            f"{lora_type} file, which costs 2.5 % and up to 14 % of the change; fp16 or float "
            "do not"
        )


NOTICES = (_idle_states, _two_starts, _bf16_of_other_formulas)
