"""Rules about held-out pictures."""

from __future__ import annotations

from collections.abc import Iterator

from kit.settings import Validation
from kit.settings.rules.rule import (
    Changed,
    RunLength,
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


@notice
def split_beside_a_count(validation: Validation) -> Iterator[str]:
    if validation.validation_split and validation.validation_count:
        yield "validation_split has no effect: validation_count is set"


@notice
def nothing_is_validated(validation: Validation, changed: Changed) -> Iterator[str]:
    if validation.is_on:
        return
    for name in ("validation_seed", "max_validation_steps", "validation_patience"):
        if name in changed:
            yield (
                f"{name} has no effect: nothing is validated; set validation_split or "
                "validation_count"
            )


@notice
def never_validated(validation: Validation, length: RunLength) -> Iterator[str]:
    yield from turns_that_never_come(
        length,
        {"validate_every_n_epochs": validation.validate_every_n_epochs},
        {"validate_every_n_steps": validation.validate_every_n_steps},
    )
