"""The panel that says which file to keep: a button, its progress, and what it found."""

import threading

import pytest
from PIL import Image

import kit
import kit.ui
from kit.choosing.measures import Losses, Measured
from kit.choosing.picking import pick
from kit.choosing.record import Record, write_record
from kit.errors import KitError, OutputError
from kit.events import Began, Cached, Finished, Noticed, Saved, to_line
from kit.ui.monitor.choice import LOST, TRAINING, ChoicePanel, choice_html
from kit.ui.monitor.dashboard import Dashboard

FILES = [
    Measured("cat-000001.safetensors", 50, (0.8, 0.7), (0.9, 0.8), Losses(word="learning")),
    Measured("cat.safetensors", 110, (0.9, 0.8), (0.2, 0.3), Losses(word="memorising")),
]


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "output" / "cat.run"
    folder.mkdir(parents=True)
    file = folder.parent / "cat.safetensors"
    file.write_bytes(b"")
    events = [Began(str(folder), "cat", 110), Saved(110, 2, str(file))]
    events += [Finished(110, "done", str(file))]
    (folder / "events.jsonl").write_text("".join(to_line(e) + "\n" for e in events), "utf-8")
    return folder


def record(run_dir, eye="<b>an eye</b>"):
    Image.new("RGB", (64, 64)).save(run_dir / "choice.jpg")
    made = Record(
        pick(FILES), eye, "choice.jpg", ("no picture is <held> out", "set validation_count = 4")
    )
    write_record(run_dir, made)
    return made


def panel_of(run_dir, compare):
    panel = ChoicePanel(compare=compare)
    panel.show_of(run_dir, is_over=True)
    return panel


def test_it_compares_and_shows_what_it_found(run_dir):
    waits = threading.Event()

    def compare(folder):
        assert folder == run_dir
        yield Noticed("no picture is <held> out")
        yield Cached("pictures to compare", 3, 12)
        waits.wait(10)
        record(folder)

    panel = panel_of(run_dir, compare)
    assert panel.box.layout.display is None and panel.found.value == ""
    panel.start()
    while panel.bar.value == 0:
        assert panel.is_at_work
    assert panel.button.disabled and panel.stop.layout.display is None
    assert "3 of 12" in panel.line.value and "&lt;held&gt;" in panel.line.value
    waits.set()
    panel.join(10)
    assert not panel.button.disabled and panel.bar.layout.display == "none"
    assert "Keep cat-000001.safetensors" in panel.found.value
    assert "data:image/jpeg;base64," in panel.found.value


def test_what_was_chosen_before_is_shown_again(run_dir):
    record(run_dir)
    dashboard = Dashboard.replay(run_dir)
    assert "Keep cat-000001.safetensors" in dashboard.choice.found.value
    assert dashboard.choice.box.layout.display is None


def test_it_is_offered_where_a_run_is_over_and_has_a_file(run_dir):
    file = run_dir / "events.jsonl"
    dashboard = Dashboard.replay(run_dir)
    assert dashboard.choice.box.layout.display is None
    file.write_text("".join(file.read_text("utf-8").splitlines(keepends=True)[:1]), "utf-8")
    assert Dashboard.replay(run_dir).choice.box.layout.display == "none"


def test_every_text_is_escaped(run_dir):
    html = choice_html(record(run_dir), run_dir)
    assert "<b>an eye" not in html and "&lt;b&gt;an eye" in html
    assert "<held>" not in html
    assert "set Validation count = 4" in html


def test_without_its_picture_the_words_remain(run_dir):
    made = record(run_dir)
    (run_dir / "choice.jpg").unlink()
    html = choice_html(made, run_dir)
    assert "<img" not in html and "Keep cat-000001.safetensors" in html


def test_what_goes_wrong_is_told_and_it_can_be_tried_again(run_dir):
    def compare(folder):
        yield Cached("pictures to compare", 1, 2)
        raise KitError("The base model is gone.", do="Put it <back>.")

    panel = panel_of(run_dir, compare)
    panel.start()
    panel.join(10)
    assert "The base model is gone." in panel.line.value and "&lt;back&gt;" in panel.line.value
    assert not panel.button.disabled


def test_it_can_be_left(run_dir):
    closed = []

    def compare(folder):
        try:
            while True:
                yield Cached("pictures to compare", 1, 2)
        finally:
            closed.append(True)

    panel = panel_of(run_dir, compare)
    panel.start()
    panel.stop.click()
    panel.join(10)
    assert panel.line.value == LOST and closed == [True]
    assert not panel.button.disabled


def test_it_does_not_compare_beside_a_training(run_dir):
    ends = threading.Event()
    training = threading.Thread(target=ends.wait, args=(10,), name=TRAINING)
    training.start()
    try:
        panel = panel_of(run_dir, lambda folder: iter(()))
        panel.start()
        assert "A run is at work" in panel.line.value and not panel.is_at_work
    finally:
        ends.set()
        training.join()


def test_the_notebook_calls_it(kernel, run_dir, monkeypatch):
    asked = []
    monkeypatch.setattr(ChoicePanel, "start", lambda panel: asked.append(panel.run_dir))
    assert kit.choose is kit.ui.choose
    panel = kit.choose(run_dir)
    assert asked == [run_dir] and panel.run_dir == run_dir
    with pytest.raises(OutputError, match="does not exist"):
        kit.choose(run_dir.parent / "dog.run")
