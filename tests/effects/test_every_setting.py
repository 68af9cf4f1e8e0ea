"""Each declared setting changes what it is for, and that alone is what is changed on both sides."""

import importlib
import json
import pkgutil
from pathlib import Path

import pytest

from kit.planning import deciding
from kit.settings import declarations
from kit.settings.rules import idle_settings
from tests.effects import rows
from tests.settings.rules.test_checks import NOTICES, SOUND

TABLES = {
    info.name: importlib.import_module(f"{rows.__name__}.{info.name}").ROWS
    for info in pkgutil.iter_modules(rows.__path__)
}
ROWS = {name: row for table in TABLES.values() for name, row in table.items()}
# What each row's two sides measured when it was written: lengths of both, and of the difference.
AMOUNTS = json.loads((Path(__file__).parents[1] / "golden" / "effects.json").read_text("utf-8"))
# Numbers that are as far apart as ever are so by no accident; what differs otherwise is looked at
# once more.
CERTAIN = 1e-3


@pytest.mark.parametrize("name", ROWS)
def test_the_setting_has_its_effect(stage, name):
    plain, other = stage.sides(name, ROWS[name])
    assert [key for key in other if other[key] != plain.get(key, ...)] == [name]
    before, after = (stage.look(ROWS[name], side) for side in (plain, other))
    assert before != after, f"{name} changes nothing that can be seen"
    amount = stage.amount(ROWS[name], plain, other)
    # Numbers in texts and names are compared above; tensors and rates of other processors by 2 %.
    assert amount == pytest.approx(AMOUNTS[name], rel=0.02, abs=1e-6), "another amount than before"
    if AMOUNTS[name][2] < CERTAIN:
        again = stage.look(ROWS[name], other, again=True)
        assert again == after, "the same settings, another effect"


@pytest.mark.parametrize("name", ROWS)
def test_the_plan_does_not_call_it_idle(stage, name):
    for side in stage.sides(name, ROWS[name]):
        settings = stage.settings(side)
        told = deciding.notices(settings)
        assert not [text for text in told if text.startswith(f"{name} has no effect")]
        assert name not in idle_settings(settings), "it would be grey in the form"


def test_what_is_grey_is_so_whatever_stands_in_it():
    usual = set(idle_settings(SOUND))
    for values in ({}, *(each for examples in NOTICES.values() for each in examples)):
        settings = SOUND.replace(**values)
        for name in set(idle_settings(settings)) - (usual if values else set()):
            other = settings.replace(**{name: ROWS[name].other})
            assert name in idle_settings(other), f"{name} depends on itself with {values}"


def test_every_declared_setting_has_one_row():
    listed = [name for table in TABLES.values() for name in table]
    assert sorted(listed) == sorted(set(listed)), "a setting stands in two tables"
    missing = [name for name in declarations() if name not in ROWS]
    assert not missing, f"no effect is shown for {missing}: see tests/effects/__init__.py"
    assert not [name for name in ROWS if name not in declarations()], "a row without a setting"
