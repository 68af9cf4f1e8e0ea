import pytest

import kit.ui
from kit.errors import ModelError
from tests.ui.runs import whole_run


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    things = []
    monkeypatch.setattr("kit.ui.look.display", things.append)
    return things


def test_show_shows_the_form_and_returns_it(shown, settings):
    form = kit.ui.show(settings)
    assert shown == [form.root, *shown[-2:]]  # and the scripts: uploads, and what follows a run
    assert form.settings == settings


def test_a_run_writes_what_it_tells_and_can_be_watched_later(small_plan, shown):
    small_plan.run.dir.mkdir(parents=True)
    dashboard = kit.ui.run(whole_run(60), small_plan)
    assert (small_plan.run.dir / "events.jsonl").is_file()
    assert (small_plan.run.dir / "loss.png").is_file()
    again = kit.ui.watch(small_plan.run.dir)
    assert again.numbers.value == dashboard.numbers.value
    assert shown == [dashboard.root, again.root]


def test_a_run_that_fails_says_so_and_raises(small_plan):
    small_plan.run.dir.mkdir(parents=True)
    told = []

    def breaks():
        yield from list(whole_run(60))[:5]
        raise ModelError("The model's file is damaged.")

    with pytest.raises(ModelError):
        told.append(kit.ui.run(breaks(), small_plan))
    assert told == []
    assert kit.ui.watch(small_plan.run.dir).history.step == 3


def test_listeners_tell_everyone_who_is_given(small_plan):
    small_plan.run.dir.mkdir(parents=True)
    heard = []
    tell = kit.ui.listeners(small_plan, heard.append)
    for event in whole_run(3):
        tell(event)
    assert heard == list(whole_run(3))
