"""An open box never holds a closed child: a front end that is opened again would show nothing."""

import gc
import inspect
from pathlib import Path

import ipywidgets as widgets
import pytest

import kit.ui
from kit.events import Began, Finished, Loaded, Sampled
from kit.ui import Dashboard
from kit.ui.monitor.gallery import Gallery

KIT_UI = Path(inspect.getfile(kit.ui)).parent
CLOSING = {"gallery.py"}  # the files that close a widget: a path of each is walked below


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


def test_a_typed_prompt_that_makes_room_takes_its_row_along(picture, closed):
    gallery = Gallery()
    drawn = [picture(step) for step in range(10, 50, 10)]
    typed = picture(10, 1)  # Sample now, once; the later steps have it no more
    gallery.update(grid_of(*drawn, typed))
    assert len(gallery.root.children) == 4
    gallery.update(grid_of(*drawn, typed, *(picture(step) for step in (50, 60))))
    assert len(gallery.root.children) == 2
    assert len(closed) == 3 * 3 + 2  # three cells of a box, picture and caption; a row of two parts
    assert holding(closed) == []


def test_a_row_that_was_closed_comes_back_when_it_is_drawn_again(picture, closed):
    gallery = Gallery()
    drawn = [picture(step) for step in (10, 20, 30, 40, 50)]
    gallery.update(grid_of(picture(10, 1), *drawn))
    assert len(gallery.root.children) == 2
    gallery.update(grid_of(picture(60, 1), *drawn))
    title, grid = gallery.root.children[2:]
    assert "sofa 1" in title.value
    assert len(grid.children) == 1
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
    assert any(isinstance(widget, widgets.Image) for widget in closed)
    assert holding(closed) == []


def test_a_picture_that_is_gone_is_closed_like_the_others(tmp_path, closed):
    gallery = Gallery()
    gallery.update({1: {0: Sampled(1, 0, str(tmp_path / "gone.png"), "a cat", 1)}})
    gallery.update({})
    assert len(closed) == 5
    assert gallery.root.children == ()
    assert holding(closed) == []


def test_every_file_that_closes_a_widget_is_walked_here():
    found = {
        path.name
        for path in KIT_UI.glob("*.py")
        if ".close()" in path.read_text("utf-8").replace("stack.close()", "")
        or ".close_all()" in path.read_text("utf-8")
    }
    assert found == CLOSING
