"""A page that is opened while a run works finds every widget."""

import threading

import ipywidgets
import pytest
from ipywidgets import HTML, VBox, Widget
from ipywidgets.widgets import widget as ipywidgets_widget

from kit.ui import whole_state
from kit.ui.whole_state import whole


class Channel:
    """Where the answer goes."""

    def __init__(self):
        self.sent = []

    def send(self, data, buffers):
        self.sent.append((data, buffers))


@pytest.fixture
def alive():
    """What there is, by id; it changes when the first of them is asked for its state."""

    class First(HTML):
        on_asked = None

        def get_state(self, *args, **kwargs):
            if self.on_asked is not None:
                self.on_asked()
            return super().get_state(*args, **kwargs)

    first, box = First(), VBox([])
    there = {w.model_id: w for w in (first, box, box.layout, first.layout, first.style)}
    yield there, first, box
    for widget in there.values():
        widget.close()


def child_of(states, box):
    return [name.removeprefix("IPY_MODEL_") for name in states[box.model_id]["state"]["children"]]


def test_what_a_thread_makes_meanwhile_is_there_with_the_box_that_holds_it(alive):
    there, first, box = alive

    def make():
        first.on_asked = None
        child = HTML()
        there.update({w.model_id: w for w in (child, child.layout, child.style)})
        box.children = [child]

    first.on_asked = make
    states = whole(there)
    assert child_of(states, box) == [box.children[0].model_id]
    assert set(states) == set(there)


def test_a_box_lets_go_of_what_is_closed_before_it_is_told(alive):
    there, first, box = alive
    child = HTML()
    box.children = [child]

    def close():
        first.on_asked = None
        threading.Timer(0.05, lambda: setattr(box, "children", [])).start()

    first.on_asked = close
    assert child_of(whole(there), box) == []  # nobody knows the child


def test_a_box_that_keeps_what_is_closed_is_told_without_it(alive, monkeypatch):
    monkeypatch.setattr(whole_state, "PAUSE", 0)
    there, _, box = alive
    kept, closed = HTML(), HTML()
    box.children = [kept, closed]
    there.update({w.model_id: w for w in (kept, kept.layout, kept.style)})
    states = whole(there)
    assert child_of(states, box) == [kept.model_id]
    assert len(box.children) == 2


def test_a_page_that_asks_gets_all_with_their_buffers(monkeypatch):
    whole_state.install()
    channel = Channel()
    monkeypatch.setattr(Widget, "_control_comm", channel)
    # Those of other tests, hundreds of thousands, are no concern of this one.
    if hasattr(ipywidgets_widget, "_instances"):
        monkeypatch.setattr(ipywidgets_widget, "_instances", {})
    else:
        monkeypatch.setattr(Widget, "widgets", {})
    picture, box = ipywidgets.Image(value=b"a picture"), VBox([])
    over = threading.Event()

    def work():
        while not over.wait(0.002):
            new, olds = HTML(), box.children
            box.children = [new]
            for old in olds:
                for each in (old, old.layout, old.style):
                    each.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            Widget._handle_control_comm_msg({"content": {"data": {"method": "request_states"}}})
    finally:
        over.set()
        thread.join()
    assert len(channel.sent) == 5
    for data, buffers in channel.sent:
        assert data["method"] == "update_states"
        assert set(child_of(data["states"], box)) <= set(data["states"])
        assert [picture.model_id, "state", "value"] in data["buffer_paths"]
        assert b"a picture" in map(bytes, buffers)
