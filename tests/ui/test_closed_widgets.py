"""An open box never holds a closed child: a front end that is opened again would show nothing."""

import gc
import inspect
from dataclasses import replace
from pathlib import Path

import ipywidgets as widgets
import pytest

import kit.ui
from kit.events import Began, Finished, Loaded, Sampled
from kit.ui import Dashboard
from kit.ui.monitor.gallery import PROMPTS_SHOWN, Gallery

KIT_UI = Path(inspect.getfile(kit.ui)).parent
CLOSING = {"gallery.py"}  # the files that close a widget: a path of each is walked below
OTHERS = ("stack.close()", "self._staging.close()", "older.close()")  # contexts and threads


@pytest.fixture
def closed(monkeypatch):
    """The widgets that were closed since the test began; asked at the end who still holds one."""
    found = []
    close = widgets.Widget.close

    def record(self):
        found.append(self)
        close(self)

    monkeypatch.setattr(widgets.Widget, "close", record)
    return found


def holding(closed):
    """Boxes that are open and hold a closed widget, in any of their levels."""
    gone = {id(widget) for widget in closed}
    # Not isinstance, which asks torch's deprecated stand-ins for their class, and they warn.
    boxes = [thing for thing in gc.get_objects() if issubclass(type(thing), widgets.Box)]
    return [
        box
        for box in boxes
        if id(box) not in gone and any(id(child) in gone for child in box.children)
    ]


def grid_of(*drawn):
    samples = {}
    for sample in drawn:
        samples.setdefault(sample.step, {})[sample.index] = sample
    return samples


def typed_by(picture, count):
    """Sample now, once for each of so many prompts."""
    return [replace(picture(10 + i, 1 + i), wished=True) for i in range(count)]


def test_a_typed_prompt_that_makes_room_takes_its_row_along(picture, closed):
    gallery = Gallery()
    drawn = [picture(step) for step in range(10, 50, 10)]
    gallery.update(grid_of(*drawn, *typed_by(picture, PROMPTS_SHOWN)))
    rows = 2 * (1 + PROMPTS_SHOWN)
    assert len(gallery.pictures_box.children) == rows
    drawn += [picture(50), picture(60)]
    gallery.update(grid_of(*drawn, *typed_by(picture, PROMPTS_SHOWN + 1)))
    assert len(gallery.pictures_box.children) == rows
    assert len(closed) == 3 + 2  # three pictures; a row of two parts
    assert holding(closed) == []


def test_a_row_that_was_closed_comes_back_when_it_is_drawn_again(picture, closed):
    gallery = Gallery()
    typed = typed_by(picture, PROMPTS_SHOWN + 1)
    gallery.update(grid_of(*typed[:-1]))
    gallery.update(grid_of(*typed))
    assert "sofa 2" in gallery.pictures_box.children[0].value
    gallery.update(grid_of(*typed, replace(picture(60, 1), wished=True)))
    title, row = gallery.pictures_box.children[:2]
    assert "sofa 1" in title.value
    assert len(row.children) == 2
    assert holding(closed) == []


def test_pictures_that_a_resumed_run_forgets_leave_no_box_behind(picture, closed, tmp_path):
    dashboard = Dashboard(shows_itself=False)
    began = [Began(str(tmp_path), "cat", 90), Loaded("SD", "cpu", "no", 1, 1, from_step=0)]
    for event in [*began, *(picture(step, i) for step in (0, 10, 20) for i in (0, 1))]:
        dashboard(event)
    dashboard.draw(whole=True)
    dashboard(Loaded("SD", "cpu", "no", 1, 1, from_step=15))  # told anew from there
    dashboard.forget()
    for event in [*began, picture(10), Finished(10, "asked to stop")]:
        dashboard(event)
    assert any("kit-open" in widget.value for widget in closed if isinstance(widget, widgets.HTML))
    assert holding(closed) == []


def test_turning_the_pages_leaves_no_box_behind(picture, closed):
    gallery = Gallery()
    gallery.update(grid_of(*(picture(step) for step in range(10, 130, 10))))
    for button in (gallery.older, gallery.older, gallery.newer):
        button.click()
    assert len(closed) == 3 * 4
    assert holding(closed) == []


def test_a_picture_that_is_gone_is_closed_like_the_others(tmp_path, closed):
    gallery = Gallery()
    gallery.update({1: {0: Sampled(1, 0, str(tmp_path / "gone.png"), "a cat", 1)}})
    gallery.update({})
    assert len(closed) == 3  # the picture; a row of two parts
    assert gallery.pictures_box.children == ()
    assert holding(closed) == []


def test_every_file_that_closes_a_widget_is_walked_here():
    texts = {path.name: path.read_text("utf-8") for path in KIT_UI.rglob("*.py")}
    for other in OTHERS:
        texts = {name: text.replace(other, "") for name, text in texts.items()}
    closing = (".close()", ".close_all()")
    assert {name for name, text in texts.items() if any(c in text for c in closing)} == CLOSING
