"""A setting of other base models changes nothing, and the run says so."""

import pytest

from kit.families.base_model import find_model
from kit.settings import declarations
from tests.effects.observers import batch, loss, rates, weights
from tests.effects.stage import Row
from tests.effects.test_every_setting import ROWS

CLAIMS = ("v2", "sdxl")  # what names the family itself is checked against the file
FOREIGN = [
    (name, family)
    for name, declared in declarations().items()
    for family in ("sd1", "sd2", "sdxl")
    if family not in declared.families and name not in CLAIMS
]


@pytest.mark.parametrize(("name", "family"), FOREIGN)
def test_it_changes_nothing_and_is_told(stage, name, family):
    row = ROWS[name]
    for shows in (batch, loss, rates, weights):
        there = Row(shows, row.other, row.given, row.plain, model=family)
        plain, other = stage.sides(name, there)
        assert stage.look(there, plain) == stage.look(there, other)
    _, notices = find_model(stage.settings(other))
    assert [text for text in notices if text.startswith(f"{name} has no effect")]


def test_there_is_something_to_look_at():
    assert ("clip_skip", "sdxl") in FOREIGN
