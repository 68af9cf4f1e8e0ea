from dataclasses import replace

import ipywidgets as widgets
import pytest

from kit.errors import OutputError
from kit.events import (
    Began,
    Cached,
    Finished,
    Loaded,
    Noticed,
    Paused,
    RateChanged,
    Resumed,
    Saved,
    to_line,
)
from kit.ui import Dashboard
from kit.ui.charts import CHARTS
from kit.ui.monitor.words import in_memory, in_speed, in_time
from tests.ui.runs import stepped, whole_run


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def shown(monkeypatch):
    """What was displayed."""
    things = []
    monkeypatch.setattr("kit.ui.look.display", things.append)
    return things


def changes_of(widget):
    seen = []
    widget.observe(lambda change: seen.append(change["new"]), names="value")
    return seen


def test_it_is_drawn_at_most_twice_a_second(shown):
    clock = Clock()
    dashboard = Dashboard(clock=clock)
    charts, numbers = changes_of(dashboard.chart), changes_of(dashboard.numbers)
    for event in whole_run(3000):
        dashboard(event)
        clock.now += 0.01
    assert 25 <= len(charts) <= 30 + 2
    assert 50 <= len(numbers) <= 2 * 30 + 2
    assert max(map(len, charts)) < 16_000


def test_the_last_event_is_always_drawn(shown):
    dashboard = Dashboard(clock=Clock())  # time stands still
    for event in whole_run(40):
        dashboard(event)
    assert "40 of 40" in dashboard.numbers.value
    assert dashboard.bar.value == 1
    assert "kit-state done" in dashboard.title.value
    assert "output/cat.safetensors" in dashboard.newest.value


def test_what_was_requested_is_drawn_at_once(shown):
    """Behind a pause nothing follows that would draw it later."""
    dashboard = Dashboard(clock=Clock())  # time stands still
    for event in list(whole_run(40))[:12]:
        dashboard(event)
    dashboard(RateChanged(10, {"unet": 0.5}))
    assert "step 10: learning rate: unet x 0.5" in dashboard.notes.value
    dashboard(Paused(10))
    assert ">paused<" in dashboard.title.value
    assert "10 of 40" in dashboard.numbers.value
    dashboard(Saved(10, 1, "output/cat-step00000010.safetensors", wished=True))
    assert "cat-step00000010" in dashboard.newest.value
    dashboard(Resumed(10))
    assert ">training<" in dashboard.title.value


def test_it_shows_itself_once_with_the_first_event(shown):
    dashboard = Dashboard()
    assert shown == []
    for event in whole_run(5):
        dashboard(event)
    assert shown == [dashboard.root]
    dashboard._ipython_display_()  # the last line of the same cell
    assert shown == [dashboard.root]


def test_naming_it_in_a_later_cell_shows_the_same_widgets_there(shown, monkeypatch):
    dashboard = Dashboard()
    for cell in (3, 3, 5):
        monkeypatch.setattr("kit.ui.look._cell", lambda cell=cell: cell)
        dashboard._ipython_display_()
    assert shown == [dashboard.root, dashboard.root]


def test_a_plan_says_name_and_length_before_anything_happens(small_plan):
    dashboard = Dashboard(small_plan)
    assert "cat" in dashboard.title.value
    assert "0 of 60" in dashboard.numbers.value


def test_what_a_run_that_starts_is_doing_is_told(small_plan):
    dashboard = Dashboard(small_plan)
    assert "now loading</span><b>the base model" in dashboard.numbers.value
    dashboard.history.add(Loaded("SD", "cpu", "no", 1, 1, 0))
    dashboard.draw()
    assert "now loading" not in dashboard.numbers.value


def test_preparing_moves_the_bar_too(shown):
    dashboard = Dashboard()
    dashboard(Cached("latents", 6, 24))
    assert dashboard.bar.value == 0.25
    assert "preparing latents" in dashboard.numbers.value
    assert "6 of 24" in dashboard.numbers.value


def test_rates_loss_speed_and_what_is_left_are_told(shown):
    clock = Clock()
    dashboard = Dashboard(clock=clock)
    for event in (Began("r", "cat", 100), stepped(20, loss=0.0834)):
        clock.now += 1
        dashboard(event)
    for text in (
        "20 of 100",
        "0.0834",
        "0.1200",
        "0.0001",
        "5e-05",
        "4.0 steps/s",
        "left, about",
        "20 s",
    ):
        assert text in dashboard.numbers.value


def test_the_epoch_is_told_with_the_number_of_all(shown):
    dashboard = Dashboard(clock=Clock())
    for event in (Began("r", "cat", 100, epochs=10), replace(stepped(2), epoch=2 / 15)):
        dashboard.history.add(event)
    dashboard.draw()
    assert "<b>0.13 of 10</b>" in dashboard.numbers.value
    dashboard.history.add(replace(stepped(100), epoch=10.0))
    dashboard.draw()
    assert "<b>10 of 10</b>" in dashboard.numbers.value
    dashboard.history.add(replace(stepped(2), epoch=2 / 15))
    dashboard.history.add(Began("r", "cat", 24, epochs=1.2))
    dashboard.draw()
    assert "<b>0.13 of 1.20</b>" in dashboard.numbers.value
    dashboard.history.add(Began("r", "cat", 24))  # from an older version's file
    dashboard.draw()
    assert "<b>0.13</b>" in dashboard.numbers.value


def test_what_a_run_says_cannot_become_markup(shown):
    clock = Clock()
    dashboard = Dashboard(clock=clock)
    for event in (Began("r", "<cat>", 1), Noticed("use <b>"), Saved(1, 1, "<i>.safetensors")):
        clock.now += 1
        dashboard(event)
    text = dashboard.title.value + dashboard.notes.value + dashboard.newest.value
    assert "&lt;cat&gt;" in text
    assert "use &lt;b&gt;" in text
    assert not any(tag in text for tag in ("<cat>", "<i>.", "use <b>"))


def test_an_error_is_said_and_what_was_reached_stays(shown):
    dashboard = Dashboard(clock=Clock())
    for event in list(whole_run(10))[:8]:
        dashboard(event)
    dashboard.break_off()
    assert "kit-state failed" in dashboard.title.value
    assert "6 of 10" in dashboard.numbers.value


def test_a_run_is_replayed_from_its_folder(shown, tmp_path, picture):
    folder = tmp_path / "output" / "cat.run"
    folder.mkdir(parents=True)
    events = [*whole_run(30)]
    events[-2:-2] = [picture(0), picture(30)]
    text = "\n".join(map(to_line, events)) + '\n{"event": "Stepp'  # torn by a lost connection
    (folder / "events.jsonl").write_text(text, encoding="utf-8")
    for path in (folder, str(folder), folder / "events.jsonl"):
        dashboard = Dashboard.replay(path)
        assert "30 of 30" in dashboard.numbers.value
        assert "<svg" in dashboard.chart.value
        assert len(dashboard.gallery.pictures) == 2
    assert shown == []  # replaying is not showing


def test_samples_are_found_where_a_moved_run_lies_now(tmp_path, picture):
    drawn = picture(5)
    run_dir = tmp_path / "output" / "cat.run"
    run_dir.mkdir()
    moved = tmp_path / "drive"
    (run_dir / "events.jsonl").write_text(to_line(drawn) + "\n", encoding="utf-8")
    (tmp_path / "output").rename(moved)
    assert len(Dashboard.replay(moved / "cat.run").gallery.pictures) == 1


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(OutputError, match="nothing to show"):
        Dashboard.replay(tmp_path / "cat.run")


def test_a_run_that_goes_on_shows_its_past(small_plan, shown):
    plan = replace(small_plan, run=replace(small_plan.run, from_step=20))
    plan.run.dir.mkdir(parents=True)
    lines = [to_line(event) for event in list(whole_run(60))[:32]]
    (plan.run.dir / "events.jsonl").write_text("\n".join(lines), encoding="utf-8")
    dashboard = Dashboard(plan)
    assert dashboard.history.step == 30
    dashboard(Loaded("SD", "cpu", "no", layers=1, weights=1, from_step=20))
    dashboard(stepped(21))
    assert dashboard.history.steps == list(range(1, 22))


def test_a_damaged_past_is_a_notice_and_no_reason_not_to_go_on(small_plan):
    plan = replace(small_plan, run=replace(small_plan.run, from_step=20))
    plan.run.dir.mkdir(parents=True)
    (plan.run.dir / "events.jsonl").write_text("damaged\n" + to_line(stepped(1)) + "\n", "utf-8")
    assert "Not a line of events.jsonl" in Dashboard(plan).notes.value


def test_stopping_is_not_an_error(shown):
    dashboard = Dashboard()
    dashboard(Finished(3, "asked to stop", "cat-step00000003.safetensors"))
    assert "kit-state stopped" in dashboard.title.value
    assert repr(dashboard.results) == "cat-step00000003.safetensors"


def test_the_style_is_in_the_same_output():
    assert isinstance(Dashboard().root.children[0], widgets.HTML)
    assert "<style>" in Dashboard().root.children[0].value


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "-"), (0.25, "4.0 steps/s"), (2.04, "2.0 s/step")]
)
def test_speed_is_said_with_a_number_above_one(seconds, text):
    assert in_speed(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (725, "12 min"), (11_100, "3 h 05 min")]
)
def test_durations_are_said_as_a_person_would(seconds, text):
    assert in_time(seconds) == text


@pytest.mark.parametrize(("megabytes", "text"), [(870, "870 MB"), (10_940, "10.9 GB")])
def test_memory_is_said_in_gb_from_one_on(megabytes, text):
    assert in_memory(megabytes) == text


def test_every_chart_that_can_be_chosen_is_one_of_its_own():
    dashboard = Dashboard(shows_itself=False)
    for event in whole_run(40, validates=True):
        dashboard(event)
    assert list(dashboard.view.options) == list(CHARTS)
    charts = {}
    for name in dashboard.view.options:
        dashboard.view.value = name
        charts[name] = dashboard.chart.value
    assert all("<svg" in chart for chart in charts.values())
    assert len(set(charts.values())) == len(charts), "two names draw the same chart"


def test_a_chart_is_a_function_and_a_row(monkeypatch):
    """Dashboard and buttons follow the table."""
    monkeypatch.setitem(CHARTS, "Gradient norm", lambda past: f"<svg>{past.last.norm}</svg>")
    dashboard = Dashboard(shows_itself=False)
    for event in whole_run(3):
        dashboard(event)
    dashboard.view.value = "Gradient norm"
    assert dashboard.chart.value == "<svg>1.0</svg>"


def test_the_newest_file_is_a_button_and_all_are_listed(tmp_path, shown):
    dashboard = Dashboard(clock=Clock())
    dashboard.run_dir = tmp_path / "cat.run"
    dashboard.run_dir.mkdir()
    assert "no LoRA file yet" in dashboard.newest.value or dashboard.newest.value == ""
    for step in (1, 2):
        file = tmp_path / f"cat-{step:06d}.safetensors"
        file.write_bytes(bytes(2_000_000))
        dashboard(Saved(step, step, str(file)))
        dashboard.draw()
    assert "cat-000002.safetensors" in dashboard.newest.value
    assert "2.0 MB" in dashboard.newest.value
    assert "All 2 files of the run" in dashboard.files.value
