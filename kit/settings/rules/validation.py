"""Rules about held-out pictures."""

from __future__ import annotations

from collections.abc import Iterator

from kit.settings import Validation
from kit.settings.rules.rule import (
    Idle,
    RunLength,
    idle,
    notice,
    problem,
    turns_that_never_come,
)


@problem
def nothing_left_to_train(validation: Validation) -> Iterator[str]:
    if validation.validation_split == 1 and not validation.validation_count:
        yield (
            "[validation] validation_split: 1 leaves nothing to train; take a share such as 0.1, "
            "or validation_count = 4"
        )


@idle
def split_beside_a_count(validation: Validation) -> Iterator[Idle]:
    if validation.validation_count:
        yield Idle("validation_count is set", "validation_split")


@idle
def nothing_is_validated(validation: Validation) -> Iterator[Idle]:
    if not validation.is_on:
        why = "nothing is validated; set validation_split or validation_count"
        yield Idle(why, "validation_seed", "max_validation_steps", "validation_patience")


@notice
def never_validated(validation: Validation, length: RunLength) -> Iterator[str]:
    yield from turns_that_never_come(
        length,
        {"validate_every_n_epochs": validation.validate_every_n_epochs},
        {"validate_every_n_steps": validation.validate_every_n_steps},
    )
