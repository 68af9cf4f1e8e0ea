"""Validations in a row that are no better than the best."""

import pytest

from kit.validation.patience import Patience


@pytest.mark.parametrize(
    ("most", "losses", "ends_at"),
    [
        (2, [5, 4, 4, 3, 3, 3], 5),
        (1, [5, 5], 1),
        (3, [5, 6, 7, 4, 5, 6], None),
        (0, [5, 6, 7, 8], None),
    ],
)
def test_it_is_lost_after_so_many_that_are_no_better(most, losses, ends_at):
    patience = Patience(most)
    lost = [i for i, loss in enumerate(losses) if patience.is_lost(i + 1, loss)]
    assert (lost[0] if lost else None) == ends_at


def test_it_knows_the_best():
    patience = Patience(9)
    for step, loss in ((10, 0.3), (20, 0.2), (30, 0.25)):
        patience.is_lost(step, loss)
    assert (patience.best_step, patience.best, patience.since) == (20, 0.2, 1)
