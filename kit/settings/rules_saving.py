"""Rules about LoRA files and states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

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


NOTICES = (_idle_states, _two_starts)
