import errno
import gc
import io
import math
import re
import shutil
import tracemalloc
from dataclasses import replace

import pytest
from PIL import Image

from kit import sinks
from kit.errors import KitError
from kit.events import (
    Began,
    Cached,
    Event,
    Failed,
    Finished,
    Loaded,
    Noticed,
    Paused,
    RateChanged,
    Sampled,
    Saved,
    Stepped,
    Validated,
    to_line,
)
from kit.runs.run import Run
from kit.sinks import Console, JsonLines, LossChart, fan_out, listening, loss_picture, read_events
from kit.sinks.console import duration
from kit.sinks.loss_curve import COLUMNS, LossCurve
from kit.sinks.loss_picture import loss_figure
from kit.sinks.measuring import Measuring


def stepped(step, loss=0.5, seconds=1.0, rates=None):
    rates = {"unet": 1e-4} if rates is None else rates
    return Stepped(step, step / 10, loss, loss, rates, 0.1, seconds)


def a_run(steps=20, start=0):
    """What a run of 20 steps tells, files at steps 10 and 20."""
    yield Began("out/cat.run", "cat", 20)
    yield Noticed("learning_rate has no effect")
    for done in range(1, 9):
        yield Cached("latents", done, 8)
    yield Loaded("Stable Diffusion 1.x", "cpu", "no", 192, 1_234_567, start)
    for step in range(start + 1, steps + 1):
        yield stepped(step, loss=1 / step)
        if step == 10:
            yield Sampled(step, 0, "out/sample/cat.png", "a cat", 3)
            yield Saved(step, 1, "out/cat-000001.safetensors", ("out/cat-000000.safetensors",))
    yield Saved(steps, 2, "out/cat.safetensors")
    yield Finished(steps, "done", "out/cat.safetensors")


# ----------------------------------------------------------------------------------- fan_out


def test_every_sink_hears_every_event():
    first, second = [], []
    tell = fan_out(first.append, second.append)
    for event in a_run():
        tell(event)
    assert first == second == list(a_run())


def test_a_sink_that_raises_is_muted_and_the_others_are_told():
    heard, calls = [], []

    def broken(event):
        calls.append(event)
        raise ConnectionError("offline")

    tell = fan_out(broken, heard.append)
    tell(stepped(1))
    tell(stepped(2))
    assert calls == [stepped(1)]
    assert [event for event in heard if isinstance(event, Stepped)] == [stepped(1), stepped(2)]
    (notice,) = (event for event in heard if isinstance(event, Noticed))
    assert notice.text == "broken failed and is muted; the run goes on: offline"


def test_sinks_that_all_raise_end_nothing():
    def broken(event):
        raise RuntimeError(event)

    class Also:
        def __call__(self, event):
            raise KitError("no")

    tell = fan_out(broken, Also())
    tell(stepped(1))
    tell(stepped(2))


def test_a_muted_sink_of_a_class_is_named_by_its_class():
    class Ledger:
        def __call__(self, event):
            raise OSError(errno.ENOSPC, "No space left on device", "ledger.txt")

    heard = []
    fan_out(Ledger(), heard.append)(stepped(1))
    assert heard[-1].text.startswith("Ledger failed and is muted")
    assert heard[-1].text.endswith("No space left on device: ledger.txt")


def test_ctrl_c_in_a_sink_is_not_swallowed():
    def pressed(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fan_out(pressed)(stepped(1))


def test_a_run_that_breaks_off_is_told_and_still_raises(tmp_path):
    run = Run(tmp_path, "cat", "safetensors", "f")
    run.dir.mkdir()
    heard = []
    with pytest.raises(KitError), listening(run, heard.append) as tell:
        tell(stepped(1))
        raise KitError("The loss is no number.", do="Lower it.")
    assert heard[1:] == [Failed("The loss is no number.\nLower it.")]
    assert read_events(run.dir / "events.jsonl") == heard


def test_a_run_that_did_not_begin_leaves_no_file_of_events(tmp_path):
    run = Run(tmp_path, "cat", "safetensors", "f")
    with pytest.raises(KitError), listening(run):
        raise KitError("No such model.")
    assert not list(tmp_path.iterdir())


def test_without_sinks_nothing_happens():
    fan_out()(stepped(1))


# -------------------------------------------------------------------------------- events.jsonl


@pytest.fixture
def written(tmp_path):
    """Write events to events.jsonl, and give its path."""
    path = tmp_path / "events.jsonl"

    def write(events, from_step=0):
        sink = JsonLines(path, from_step)
        for event in events:
            sink(event)
        sink.close()
        return path

    return write


def test_events_come_back_from_their_file(written):
    assert read_events(written(a_run())) == list(a_run())


def test_a_deleted_folder_costs_no_event(tmp_path):
    sink, told = JsonLines(tmp_path / "cat.run" / "events.jsonl"), list(a_run())
    sink.path.parent.mkdir()
    for number, event in enumerate(told):
        sink(event)
        if number == 5:
            shutil.rmtree(sink.path.parent)
        if number == 9:
            sink.path.unlink()
    sink.close()
    assert read_events(sink.path) == told


def test_a_line_is_there_as_soon_as_its_event(tmp_path):
    sink = JsonLines(tmp_path / "events.jsonl")
    for count, event in enumerate(a_run(), start=1):
        sink(event)
        assert len(read_events(sink.path)) == count
    sink.close()


def test_nothing_is_written_before_the_first_event(tmp_path):
    JsonLines(tmp_path / "later" / "events.jsonl").close()
    assert list(tmp_path.iterdir()) == []


def test_a_new_run_begins_the_file_anew(written):
    written(a_run())
    assert read_events(written([Noticed("new")])) == [Noticed("new")]


def test_a_run_that_goes_on_keeps_what_it_does_not_repeat(written):
    written(a_run(steps=15))
    events = read_events(written(a_run(start=10), from_step=10))
    steps = [event.step for event in events if isinstance(event, Stepped)]
    assert steps == list(range(1, 21))
    assert [event.step for event in events if isinstance(event, Saved)] == [10, 20]
    assert [event.step for event in events if isinstance(event, Finished)] == [20]
    assert sum(isinstance(event, Loaded) for event in events) == 2


def test_what_a_person_asked_for_stays_though_its_step_is_made_again(written):
    """Its picture and its file lie on disk, and nobody will ask for them again."""
    typed = Sampled(12, 1, "typed.png", "a red square", 1, wished=True)
    saved = Saved(12, 2, "cat-step00000012.safetensors", wished=True)
    due = Sampled(12, 0, "due.png", "a cat", 1)
    written([stepped(10), typed, due, saved])
    assert read_events(written([stepped(11)], from_step=10)) == [
        stepped(10),
        typed,
        saved,
        stepped(11),
    ]


def test_what_was_told_at_the_very_step_stays(written):
    told = [
        stepped(10),
        Sampled(10, 0, "a", "b", 1),
        Saved(10, 1, "c"),
        Finished(10, "asked to stop"),
    ]
    assert read_events(written(told)) == told
    assert read_events(written([stepped(11)], from_step=10)) == [*told, stepped(11)]


def test_a_torn_last_line_is_left_out(written):
    path = written([stepped(1), stepped(2)])
    whole = path.read_bytes()
    for cut in range(1, len(to_line(stepped(2)))):
        path.write_bytes(whole[: len(whole) - 1 - cut])
        assert read_events(path) == [stepped(1)]


@pytest.mark.parametrize("torn", [b'{"event": "Step', b"\x00" * 100, b"\xff\xfe\xfd"])
def test_a_run_goes_on_behind_a_torn_last_line(written, torn):
    path = written([stepped(1), stepped(2)])
    path.write_bytes(path.read_bytes() + torn)
    assert read_events(path) == [stepped(1), stepped(2)]
    assert read_events(written([stepped(3)], from_step=2)) == [stepped(1), stepped(2), stepped(3)]


def test_going_on_without_an_earlier_file_begins_one(written):
    assert read_events(written([stepped(8)], from_step=7)) == [stepped(8)]


def test_a_file_that_was_closed_goes_on_where_it_was(tmp_path):
    sink = JsonLines(tmp_path / "events.jsonl")
    for step in (1, 2, 3):
        sink(stepped(step))
        sink.close()
    assert read_events(sink.path) == [stepped(1), stepped(2), stepped(3)]


def test_a_damaged_line_before_the_last_is_named(written):
    path = written([stepped(1), stepped(2)])
    path.write_text("garbage\n" + path.read_text("utf-8"), "utf-8")
    with pytest.raises(KitError, match="garbage"):
        read_events(path)


def test_an_empty_file_has_no_events(tmp_path):
    (tmp_path / "events.jsonl").write_text("", "utf-8")
    assert read_events(tmp_path / "events.jsonl") == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(KitError, match=r"events\.jsonl cannot be read: No such file"):
        read_events(tmp_path / "events.jsonl")


# ------------------------------------------------------------------------------------- console


class Terminal(io.StringIO):
    def __init__(self):
        super().__init__()
        self.writes = []

    def isatty(self):
        return True

    def write(self, text):
        self.writes.append(text)
        return super().write(text)


def shown(events, stream=None):
    stream = stream or io.StringIO()
    console = Console(20, stream=stream)
    for event in events:
        console(event)
    console.close()
    return stream.getvalue()


def test_without_a_terminal_a_run_is_a_few_lines():
    assert shown(a_run()).splitlines() == [
        "cat: 20 steps; its folder is out/cat.run",
        "! learning_rate has no effect",
        "latents 1/8 (12 %)",
        "latents 2/8 (25 %)",
        "latents 4/8 (50 %)",
        "latents 6/8 (75 %)",
        "latents 8/8 (100 %)",
        "Stable Diffusion 1.x on cpu, precision no; the LoRA has 192 layers, 1,234,567 weights",
        "steps 1/20 (5 %), loss 1.0000, lr 0.0001, 1.00 s/step, 19 s left",
        "steps 2/20 (10 %), loss 0.5000, lr 0.0001, 1.00 s/step, 18 s left",
        "steps 4/20 (20 %), loss 0.2500, lr 0.0001, 1.00 s/step, 16 s left",
        "steps 6/20 (30 %), loss 0.1667, lr 0.0001, 1.00 s/step, 14 s left",
        "steps 8/20 (40 %), loss 0.1250, lr 0.0001, 1.00 s/step, 12 s left",
        "steps 10/20 (50 %), loss 0.1000, lr 0.0001, 1.00 s/step, 10 s left",
        "step 10: drew out/sample/cat.png",
        "step 10: saved out/cat-000001.safetensors, removed out/cat-000000.safetensors",
        "steps 12/20 (60 %), loss 0.0833, lr 0.0001, 1.00 s/step, 8 s left",
        "steps 14/20 (70 %), loss 0.0714, lr 0.0001, 1.00 s/step, 6 s left",
        "steps 16/20 (80 %), loss 0.0625, lr 0.0001, 1.00 s/step, 4 s left",
        "steps 18/20 (90 %), loss 0.0556, lr 0.0001, 1.00 s/step, 2 s left",
        "steps 20/20 (100 %), loss 0.0500, lr 0.0001, 1.00 s/step, 0 s left",
        "step 20: saved out/cat.safetensors",
        "done, at step 20: out/cat.safetensors",
    ]


@pytest.mark.parametrize("steps", [1, 3, 10, 999, 5000])
def test_without_a_terminal_the_steps_take_at_most_a_dozen_lines(steps):
    events = [Began("d", "n", steps), *(stepped(step) for step in range(1, steps + 1))]
    lines = [line for line in shown(events).splitlines() if line.startswith("steps ")]
    assert min(steps, 10) <= len(lines) <= 12
    assert lines[-1].startswith(f"steps {steps}/{steps} (100 %)")


def test_a_run_that_goes_on_says_after_which_step():
    text = shown(a_run(start=10))
    assert "weights; goes on after step 10" in text
    assert "steps 11/20" in text


def test_a_stopped_run_says_how_it_goes_on():
    onward = "start it again with the same settings"
    assert onward not in shown(a_run())
    assert onward in shown([Began("out/cat.run", "cat", 20), Finished(3, "asked to stop", "cat.x")])


def test_a_run_without_a_file_or_rates_is_shown_too():
    text = shown([stepped(1, rates={}), Finished(1, "asked to stop")])
    assert "lr -" in text
    assert text.endswith("asked to stop, at step 1\n")


def test_different_rates_are_named():
    text = shown([stepped(1, rates={"unet": 1e-4, "text encoder": 5e-5})])
    assert "lr unet 0.0001 text encoder 5e-05" in text
    assert "lr 0.0001," in shown([stepped(1, rates={"unet": 1e-4, "text encoder": 1e-4})])


def test_what_was_requested_is_a_line():
    text = shown([Paused(3), RateChanged(4, {"unet": 0.5})])
    assert "step 3: rests, its state is kept" in text
    assert "step 4: learning rate of unet x 0.5" in text


def test_a_loss_that_is_not_a_number_is_shown():
    assert "loss nan" in shown([stepped(1, loss=math.nan)])


def test_an_event_of_another_kind_shows_nothing():
    class Other(Event):
        pass

    assert shown([Other()]) == ""


def test_a_terminal_gets_a_bar_and_whole_lines_above_it():
    terminal = Terminal()
    text = shown(a_run(), terminal)
    assert re.search(r"latents: 100%\|.*\| 8/8", text)
    assert re.search(r"steps: 100%\|.*\| 20/20 .*loss 0\.0500, lr 0\.0001", text)
    for line in ("! learning_rate has no effect\n", "step 20: saved out/cat.safetensors\n"):
        assert line in text
    assert text.endswith("done, at step 20: out/cat.safetensors\n")


def test_a_terminal_is_redrawn_at_most_five_times_a_second():
    terminal = Terminal()
    console = Console(100_000, stream=terminal)
    for step in range(1, 20_001):  # a fraction of a second
        console(stepped(step))
    console.close()
    bars = [text for text in terminal.writes if "steps:" in text]
    seconds = max(float(text) for text in re.findall(r"\[00:0(\d)", "".join(bars)))
    assert len(bars) <= 5 * (seconds + 1) + 3


def test_a_bar_that_is_left_early_ends_its_line():
    terminal = Terminal()
    console = Console(100, stream=terminal)
    console(stepped(1))
    console.close()
    assert terminal.getvalue().endswith("\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.2, "1 s"),
        (59, "59 s"),
        (61, "1 min"),
        (260, "4 min"),
        (3600, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (math.inf, "?"),
        (math.nan, "?"),
    ],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


# ------------------------------------------------------------------------------------ loss.png


def test_the_picture_is_drawn_at_saves_and_at_the_end(tmp_path):
    path = tmp_path / "loss.png"
    chart = LossChart(path, clock=lambda: 0.0)  # it costs no time
    times = []
    for event in a_run():
        chart(event)
        if path.exists():
            times.append((type(event).__name__, getattr(event, "step", None)))
            path.unlink()
    assert times == [("Saved", 10), ("Saved", 20)], "the end brings nothing new to draw"


def drawn_at(tmp_path, monkeypatch, events, *, a_step):
    """The steps after which a picture was drawn, which takes 0.3 s."""
    now, drawn, write = [0.0], [], loss_picture.write_atomically

    def slowly(path, make):
        now[0] += 0.3
        drawn.append(chart.curve.steps[-1])
        write(path, make)

    monkeypatch.setattr(loss_picture, "write_atomically", slowly)
    chart = LossChart(tmp_path / "loss.png", clock=lambda: now[0])
    for event in events:
        now[0] += a_step * isinstance(event, Stepped)
        chart(event)
    return drawn


def quick_saves(end):
    yield Loaded("Stable Diffusion 1.x", "cpu", "no", 192, 1_234_567, 0)
    for step in range(1, 61):
        yield stepped(step, loss=1 / step)
        if step % 10 == 0:
            yield Saved(step, 1, "out/cat.safetensors")
    yield end


@pytest.mark.parametrize("end", [Finished(60, "done"), Failed("the disk is gone")])
def test_pictures_of_saves_that_follow_quickly_do_not_take_the_time_of_the_run(
    tmp_path, monkeypatch, end
):
    assert drawn_at(tmp_path, monkeypatch, quick_saves(end), a_step=2) == [10, 20, 30, 40, 50, 60]
    assert drawn_at(tmp_path, monkeypatch, quick_saves(end), a_step=0.4) == [10, 40, 60]
    assert drawn_at(tmp_path, monkeypatch, quick_saves(end), a_step=0.01) == [10, 60]


def test_a_run_that_fails_before_it_begins_draws_nothing(tmp_path):
    chart = LossChart(tmp_path / "loss.png", earlier=a_run())
    chart(Failed("there is no such model"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("steps", [1, 2, 30])
def test_the_picture_can_be_opened(tmp_path, steps):
    path = tmp_path / "loss.png"
    chart = LossChart(path)
    for event in a_run(steps=steps):
        chart(event)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 400
        assert sum(count > 0 for count in image.convert("L").histogram()) > 20
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_without_steps_has_no_picture(tmp_path):
    LossChart(tmp_path / "loss.png")(Finished(0, "asked to stop"))
    assert list(tmp_path.iterdir()) == []


def test_the_picture_shows_both_curves_and_every_rate():
    rates = {"unet": 1e-4, "text encoder": 5e-5}
    figure = loss_figure(LossCurve(stepped(step, 1 / step, rates=rates) for step in range(1, 100)))
    losses, below = figure.axes
    assert [line.get_label() for line in losses.lines] == ["each step", "average of an epoch"]
    assert [line.get_label() for line in below.lines] == ["unet", "text encoder"]
    assert (losses.get_ylabel(), below.get_ylabel(), below.get_xlabel()) == (
        "loss", "learning rate", "step"
    )  # fmt: skip
    assert list(losses.lines[0].get_xdata()) == list(range(1, 100))
    assert losses.get_position().height > 2 * below.get_position().height


def test_the_picture_shows_the_loss_on_held_out_images_and_the_bare_base_model():
    steps = [stepped(step, 0.2 + step % 3 / 10) for step in range(1, 100)]
    told = [Validated(step, step / 10, 1.5, 0.5) for step in (30, 60, 90)]
    curve = LossCurve(steps)
    for event in told:
        curve.validate(event)
    losses = loss_figure(curve).axes[0]
    named = {line.get_label(): line for line in losses.lines}
    assert list(named["held-out images"].get_xdata()) == [30, 60, 90]
    assert list(named["held-out images"].get_ydata()) == [1.5] * 3
    assert set(named["bare base model"].get_ydata()) == {0.5}
    assert losses.get_ylim()[1] > 1.5


def test_the_picture_forgets_validations_that_are_made_again(tmp_path):
    chart = LossChart(tmp_path / "loss.png")
    for event in (stepped(1), Validated(1, 0.1, 1, 1), stepped(2), Validated(2, 0.2, 1, 1)):
        chart(event)
    chart(Loaded("Stable Diffusion 1.x", "cpu", "no", 192, 1, 1))
    assert list(chart.curve.validated) == [1]


def test_a_validation_is_told_once_though_it_is_made_again(tmp_path):
    path = tmp_path / "events.jsonl"
    first = JsonLines(path)
    for event in (stepped(1), stepped(2), Validated(2, 0.2, 1.0, 1.0, seconds=3)):
        first(event)
    first.close()
    again = JsonLines(path, 2)
    again(Noticed("it goes on"))
    again(Validated(2, 0.2, 1.0, 1.0, seconds=4))
    again(stepped(3))
    again.close()
    told = [event for event in read_events(path) if not isinstance(event, Noticed)]
    assert told == [stepped(1), stepped(2), Validated(2, 0.2, 1.0, 1.0, seconds=4), stepped(3)]


def test_a_validation_is_a_line_on_the_console():
    told = shown([Validated(2, 0.2, 0.0912, 0.1, word="learning")])
    assert "step 2: validation loss 0.0912, the bare base model's 0.1: learning" in told
    assert "loss on trained images 0.09" in shown([Validated(2, 0.2, 0.09, 0.1, on="trained")])


def test_what_the_base_draws_for_the_class_word_is_told_and_drawn():
    event = Validated(2, 0.2, 0.09, 0.1, on="trained", prior_loss=0.06, prior_base_loss=0.05)
    told = shown([event])
    assert "; on its own pictures of the class word 0.06, the base's 0.05" in " ".join(told.split())
    curve = LossCurve([stepped(step) for step in (1, 2)])
    curve.validate(replace(event, step=1, prior_loss=None, prior_base_loss=None))
    curve.validate(event)
    named = {line.get_label(): line for line in loss_figure(curve).axes[0].lines}
    assert list(named["the base's own of the class word"].get_ydata())[1:] == [0.06]


def test_a_few_high_losses_do_not_flatten_the_curve():
    steps = [
        stepped(step, 1000.0 if step == 50 else 0.1 + step % 7 / 100) for step in range(1, 200)
    ]
    assert loss_figure(LossCurve(steps)).axes[0].get_ylim()[1] < 1


@pytest.mark.parametrize("loss", [math.nan, math.inf, 0.0])
def test_losses_that_cannot_be_drawn_do_not_stop_the_picture(tmp_path, loss):
    chart = LossChart(tmp_path / "loss.png")
    for step in range(1, 61):
        chart(stepped(step, loss, rates={}))
    chart(Finished(60, "done"))
    assert (tmp_path / "loss.png").exists()


def test_a_run_that_goes_on_draws_its_past_too(tmp_path):
    chart = LossChart(tmp_path / "loss.png", earlier=a_run(steps=15))
    assert list(tmp_path.iterdir()) == []
    for event in a_run(start=10):
        chart(event)
    assert list(chart.curve.steps) == list(range(1, 21))


def test_each_drawing_leaves_nothing_behind(tmp_path):
    """A figure is a circle of references: each new one of 20,000 steps held 100 MB."""
    chart = LossChart(tmp_path / "loss.png")
    for step in range(1, 3001):
        chart(stepped(step, 1 / step, rates={"unet": 1e-4}))
    chart(Saved(3000, 1, "a.safetensors"))
    renderer = chart._figure.canvas.get_renderer()
    gc.collect()
    gc.disable()
    try:
        for step in (3001, 3002, 3003):
            chart(stepped(step, 0.1, rates={"unet": 1e-4}))
            chart(Saved(step, 1, "a.safetensors"))
        assert chart._figure.canvas.get_renderer() is renderer, "each holds 2 MB"
        assert gc.collect() < 1000, "three figures leave 17,000 objects"
    finally:
        gc.enable()


def test_a_long_run_costs_a_few_bytes_a_step(tmp_path):
    chart, measuring = LossChart(tmp_path / "loss.png"), Measuring({})
    one = stepped(1, 0.5, rates={"unet": 1e-4, "text encoder": 1e-5})
    for event in (replace(one, step=step) for step in range(1, 101)):
        chart(event), measuring(event)
    tracemalloc.start()
    try:
        for step in range(101, 5101):
            event = replace(one, step=step, seconds=step * 1.0, rates=dict(one.rates))
            chart(event), measuring(event)
        del event
        grown = tracemalloc.get_traced_memory()[0] / 5000
    finally:
        tracemalloc.stop()
    assert grown < 80, f"{grown:.0f} bytes a step; an event is 700"


def test_of_a_long_run_each_column_shows_its_lowest_and_highest_loss():
    losses = {step: 1.0 for step in range(1, 20_001)} | {7003: 9.0, 7011: 0.25, 12: math.nan}
    curve = LossCurve(stepped(step, loss) for step, loss in losses.items())
    steps, shown = curve.points(curve.losses)
    assert len(steps) <= 2 * COLUMNS
    assert steps == sorted(set(steps))
    assert (shown[steps.index(7003)], shown[steps.index(7011)]) == (9.0, 0.25)


def test_steps_that_are_made_again_are_drawn_as_they_come_out_then():
    curve = LossCurve(stepped(step, 1.0, rates={"unet": 1.0}) for step in range(1, 11))
    curve.add(stepped(7, 2.0, rates={"text encoder": 3.0}))
    assert list(curve.steps) == [1, 2, 3, 4, 5, 6, 7]
    assert list(curve.losses) == [1.0] * 6 + [2.0]
    assert [math.isnan(rate) for rate in curve.rates["unet"]] == [False] * 6 + [True]
    assert [math.isnan(rate) for rate in curve.rates["text encoder"]] == [True] * 6 + [False]


@pytest.mark.parametrize(("device", "taken"), [("NVIDIA T4 (cuda:0)", 0), ("CPU, 2 threads", 2)])
def test_what_the_picture_takes_is_taken_early_and_nobody_waits_for_it(tmp_path, device, taken):
    chart = LossChart(tmp_path / "loss.png")
    made = []
    for event in (Loaded("sd1", device, "no", 1, 1, 0), *(stepped(step) for step in (1, 2, 3))):
        chart(event)
        made.append(chart._figure is not None)
    assert made.index(True) == taken
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_of_the_file_of_events_once_and_ends_nothing(tmp_path):
    class FullDisk(io.RawIOBase):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    lines, heard = JsonLines(tmp_path / "events.jsonl"), []
    lines._file = FullDisk()
    tell = fan_out(lines, heard.append)
    tell(Noticed("hello"))
    tell(Noticed("again"))
    lines.close()
    texts = [event.text for event in heard]
    assert (texts[0], texts[2]) == ("hello", "again")
    assert "events.jsonl cannot be written (No space left on device" in texts[1]
    assert len(texts) == 3


def test_a_listener_that_cannot_close_does_not_hide_what_ended_the_run(tmp_path, monkeypatch):
    class Stubborn:
        def __call__(self, event):
            pass

        def close(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sinks, "_chosen", lambda run, settings: [Stubborn()])
    this = Run(tmp_path, "cat", "safetensors", "f")
    with pytest.raises(KitError, match="the good message"), listening(this):
        raise KitError("the good message")


def test_a_history_that_cannot_be_read_does_not_hide_what_comes_after(tmp_path):
    (tmp_path / "events.jsonl").mkdir()
    assert JsonLines(tmp_path / "events.jsonl", from_step=5).kept() == []
