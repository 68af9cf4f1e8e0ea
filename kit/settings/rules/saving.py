"""Rules about LoRA files and states."""

from __future__ import annotations

from collections.abc import Iterator

from kit.catalog import readers
from kit.settings import NetworkSettings, Saving
from kit.settings.effective import lora_type
from kit.settings.rules.rule import (
    Changed,
    Idle,
    RunLength,
    idle,
    notice,
    turns_that_never_come,
)


@notice
def pickle_without_metadata(saving: Saving) -> Iterator[str]:
    if saving.save_model_as != "safetensors":
        yield (
            f"save_model_as = {saving.save_model_as} keeps no metadata (no comment, no "
            "settings), and some programs refuse it; safetensors is the safe choice"
        )


@notice
def in_bf16(saving: Saving, network: NetworkSettings) -> Iterator[str]:
    if saving.save_precision == "bf16" and not lora_type(network).is_plain_lora:
        yield (
            f"save_precision = bf16: A1111 takes the base model's layers in the precision of "
            f"a file of {network.LoRA_type}; in bf16 the change is a few percent off there (LoKr: "
            "2.5 % in the median), with fp16 it is not"
        )


@notice
def bf16_of_other_formulas(saving: Saving, network: NetworkSettings) -> Iterator[str]:
    """Measured: a LoKr in bf16 is 2.5 % off (median), up to 14 %: the base is cast to it."""
    row = lora_type(network)
    reads = row.read_by.a1111 != readers.NOT and row.read_by != readers.EVERYWHERE
    if saving.save_precision == "bf16" and reads:
        yield (
            f"save_precision = bf16: A1111 rounds the base model's layers to the type of a "
            f"{network.LoRA_type} file, which costs 2.5 % and up to 14 % of the change; fp16 or "
            "float do not"
        )


@idle
def idle_states(saving: Saving) -> Iterator[Idle]:
    if saving.save_state:
        yield Idle("save_state keeps one at the end, too", "save_state_on_train_end")
    else:
        yield Idle("save_state is off", "save_last_n_epochs_state", "save_last_n_steps_state")


@notice
def two_starts(saving: Saving, network: NetworkSettings) -> Iterator[str]:
    """Which layers and ranks there are may still be the file's to say."""
    if saving.resume.strip() and network.network_weights:
        yield "network_weights: the weights of the state in resume take the place of the file's"


@idle
def kept_of_none(saving: Saving) -> Iterator[Idle]:
    """How many of the files along the way are kept, where there are none along the way."""
    if not saving.save_every_n_epochs:
        yield Idle("save_every_n_epochs is blank", "save_last_n_epochs")
    if not saving.save_every_n_steps:
        yield Idle("save_every_n_steps is blank", "save_last_n_steps")


@notice
def never_saved(saving: Saving, changed: Changed, length: RunLength) -> Iterator[str]:
    """Told where it was asked for; a LoRA is written at the end whatever stands there."""
    epochs = {"save_every_n_epochs": saving.save_every_n_epochs}
    yield from turns_that_never_come(
        length,
        {name: every for name, every in epochs.items() if name in changed},
        {"save_every_n_steps": saving.save_every_n_steps},
    )
