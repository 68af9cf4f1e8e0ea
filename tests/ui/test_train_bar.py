"""The Train button: what it starts, what it refuses, and what is shown again."""

from pathlib import Path

import pytest

import kit.ui
from kit import catalog
from kit.dataset.data_sets import Words
from kit.errors import KitError
from kit.events import to_line
from kit.planning import plan
from kit.runs.made_of import keep
from kit.runs.record import RunRecord, write_record
from kit.settings import Settings
from kit.ui import door
from kit.ui.form.form import Form
from kit.ui.form.remembered import STATE, example, place, remember
from kit.ui.monitor.session import TRAIN, Session
from kit.ui.train_bar import TrainBar
from tests.ui.runs import Script, until, whole_run


@pytest.fixture
def script(monkeypatch, kernel):
    script, load = Script(steps=5), catalog.load
    monkeypatch.setattr(
        catalog,
        "load",
        lambda code, needs="": script.train if code == TRAIN else load(code, needs),
    )
    return script


def test_train_starts_what_stands_in_the_form_and_shows_the_run_where_it_was_pressed(script, ready):
    form = Form(ready)
    bar = TrainBar(form)
    assert [each.button.description for each in bar.bars] == ["Train", "Train"]
    bar.lower.button.click()
    session = Session.current
    assert session.plan.run.name == "cat"
    assert bar.lower.slot.children == (session.dashboard.root,)
    assert bar.upper.slot.children == ()
    assert all(each.button.disabled for each in bar.bars)
    script.let(0)
    session.join(20)
    until(lambda: not bar.upper.button.disabled)


def test_while_it_trains_both_bars_hold_pause_and_stop_and_the_start_is_a_line(script, ready):
    form = Form(ready)
    bar = TrainBar(form)
    bar.upper.button.click()
    controls = Session.current.dashboard.controls
    for each in bar.bars:
        assert each.root.children[-2:] == (controls.pause, controls.stop)
    assert form.start.questions.layout.display == "none"
    assert "3 pictures" in form.start.summary.value
    form.start.change_button.click()
    assert form.start.questions.layout.display is None
    script.let(0)
    Session.current.join(20)
    until(lambda: controls.stop not in bar.upper.root.children)


def test_a_form_that_is_not_ready_says_why_and_starts_nothing(script, ready):
    form = Form(ready)
    bar = TrainBar(form)
    form.fields["network_dim"].value = "9999"
    assert bar.upper.button.disabled
    assert bar.upper.problems_button.description == "1 problem"
    bar.train()  # however it is asked
    assert "9999 is outside of what is possible" in bar.upper.line.value
    bar.upper.problems_button.click()
    assert form.views.choice.value == "All settings"
    form.fields["network_dim"].value = "8"
    form.fields["train_data_dir"].value = "/nowhere"
    bar.train(bar.lower)
    assert "Image folder = /nowhere does not exist" in bar.lower.line.value
    assert Session.current is None


def test_what_a_training_would_refuse_blocks_train(script, ready):
    form = Form(ready)
    bar = TrainBar(form)
    form.fields["pretrained_model_name_or_path"].value = "/no/model.safetensors"
    assert bar.upper.button.disabled
    assert "is not on this machine" in form.plan_line.value
    assert "is not on this machine" in form.fields["pretrained_model_name_or_path"].problem
    form.fields["pretrained_model_name_or_path"].value = ""
    assert bar.upper.button.disabled
    assert bar.upper.problems_button.layout.display == "none"  # it is no mistake, but a question
    assert form.sentence.value == "<div>Still to choose: a base model (2).</div>"
    bar.train()
    assert Session.current is None


def test_a_second_train_is_refused_with_a_clear_text(script, ready):
    first, second = TrainBar(Form(ready)), TrainBar(Form(ready.replace(output_name="dog")))
    first.upper.button.click()
    second.train()
    assert "A run is at work in this kernel: cat" in second.upper.line.value
    assert Session.current.plan.run.name == "cat"


def test_showing_again_while_it_trains_shows_the_same_widgets(script, ready, kernel):
    form = kit.ui.show(ready)
    TrainBar(form).upper.button.click()
    session = Session.current
    assert kit.ui.show() is form
    assert [thing for thing in kernel if thing is form.root] == [form.root, form.root]
    script.let(0)
    session.join(20)
    again = kit.ui.show()  # it is over: the form opens anew, with the run below
    assert again is not form
    assert Session.current is session
    assert session.dashboard.root in again.run.children[-1].children


def test_an_unfinished_run_of_these_settings_is_offered_and_its_past_is_shown(kernel, ready):
    ready_plan = plan(ready)
    lines = [to_line(event) for event in list(whole_run(60))[:22]]
    ready_plan.run.own_state.mkdir(parents=True)
    (ready_plan.run.own_state / "state.pt").touch()
    write_record(ready_plan.run.dir, RunRecord(ready_plan.run.fingerprint, ready_plan.seed, 20))
    (ready_plan.run.dir / "events.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    bar = TrainBar(Form(ready_plan.settings))
    assert bar.upper.button.description == "Resume from step 20"
    assert not bar.upper.button.disabled
    assert len(bar.upper.slot.children) == 1
    assert ">stopped<" in bar.upper.slot.children[0].children[1].value  # after the style sheet


@pytest.fixture
def unfinished(ready, images):
    """A run at step 20, one of whose captions was corrected since."""
    found = plan(ready)
    found.run.own_state.mkdir(parents=True)
    (found.run.own_state / "state.pt").touch()
    write_record(found.run.dir, RunRecord(found.run.fingerprint, found.seed, 20))
    assert keep(found.run.dir, found.made_of) == ""
    (images / "4_cat" / "1.txt").write_text("a dog", encoding="utf-8")
    return ready


def test_a_form_without_an_unfinished_run_asks_nothing(kernel, ready):
    bar = TrainBar(Form(ready))
    assert [each.question.root.layout.display for each in bar.bars] == ["none", "none"]


def test_the_form_asks_whether_to_go_on_where_a_caption_was_corrected(script, unfinished):
    bar = TrainBar(Form(unfinished.replace(cross_attention="none")))
    question = bar.upper.question
    assert question.root.layout.display is None
    assert "<b>cat</b> is not finished (step 20)" in question.text.value
    assert "caption of 4_cat/1.png changed (it began &quot;a cat number 1&quot;)" in (
        question.text.value
    )
    assert "CrossAttention: sdpa -&gt; none" in question.text.value  # by its label
    bar.upper.button.click()  # Train alone is no answer
    assert Session.current is None
    assert question.root.layout.display is None
    assert question.go_on.description == "Go on with cat"
    question.go_on.click()
    run = Session.current.plan.run
    assert (run.name, run.from_step) == ("cat", 20)
    assert question.root.layout.display == "none"
    script.let(0)
    Session.current.join(20)


def test_the_form_begins_anew_beside_an_unfinished_run_where_it_is_told_to(script, unfinished):
    bar = TrainBar(Form(unfinished))
    assert bar.lower.question.begin_anew.description == "Begin anew as cat-2"
    bar.lower.question.begin_anew.click()
    session = Session.current
    assert (session.plan.run.name, session.plan.run.from_step) == ("cat-2", 0)
    assert bar.lower.slot.children == (session.dashboard.root,)
    script.let(0)
    session.join(20)


def test_what_has_to_be_asked_is_not_left_to_the_queue(kernel, unfinished, tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_KIT_QUEUE", str(tmp_path / "queue"))
    bar = TrainBar(Form(unfinished))
    bar.lower.queue_button.click()
    assert "cat is not finished (step 20)" in bar.lower.line.value
    assert "The queue could not ask you" in bar.lower.line.value
    assert not (tmp_path / "queue").exists()


def test_the_question_goes_when_the_old_caption_is_back(kernel, unfinished, images):
    form = Form(unfinished)
    bar = TrainBar(form)
    (images / "4_cat" / "1.txt").write_text("a cat number 1", encoding="utf-8")
    form.refresh()
    assert form.problems == ()  # it is planned anew
    assert bar.upper.question.root.layout.display == "none"
    assert bar.upper.button.description == "Resume from step 20"


def test_the_button_offers_to_go_on_after_a_stop(script, ready):
    bar = TrainBar(Form(ready))
    bar.upper.button.click()
    session = Session.current
    assert script.began.wait(20)
    run = session.plan.run
    run.own_state.mkdir(parents=True, exist_ok=True)
    (run.own_state / "state.pt").touch()
    write_record(run.dir, RunRecord(run.fingerprint, session.plan.seed, 2))
    session.interrupt()
    session.join(20)
    until(lambda: bar.upper.button.description == "Resume from step 2")


def test_a_kernel_that_starts_anew_brings_form_run_and_way_back(script, ready):
    form = kit.ui.show(ready)
    form.fill(ready.replace(network_dim=48))
    form.fields["epoch"].value = "many"  # wrong as yet, and not lost either
    form.fields["epoch"].value = "3"
    form.start.trigger_word.value = "zxcat"
    bar = TrainBar(form)
    bar.upper.button.click()
    script.let(0)
    Session.current.join(20)
    Path(Session.current.plan.run.dir / "events.jsonl").write_text(
        "\n".join(to_line(event) for event in whole_run(5)), "utf-8"
    )
    form.fields["epoch"].value = "many"
    Session.current, door._form = None, None  # as a new kernel has them
    again = kit.ui.show()
    assert again.fields["epoch"].value == "many"
    assert again.fields["network_dim"].value == "48"
    assert again.start.answers.trigger_word == "zxcat"
    assert ">done<" in again.run.children[-1].children[0].children[1].value
    again.head.undo()
    assert again.settings.basic.epoch == 3
    for _ in range(2):
        again.head.undo()
    assert again.settings.network.network_dim == 48


@pytest.mark.parametrize("remembers", [True, False])
def test_a_finished_run_is_shown_again_in_a_new_kernel(script, ready, remembers):
    """Also where the form was given its settings, or forgot what it started."""
    TrainBar(kit.ui.show(ready)).upper.button.click()
    script.let(0)
    Session.current.join(20)
    run_dir = Session.current.plan.run.dir
    (run_dir / "events.jsonl").write_text(
        "\n".join(to_line(event) for event in whole_run(5)), "utf-8"
    )
    write_record(run_dir, RunRecord(Session.current.plan.run.fingerprint, 7, 5, finished=True))
    Session.current, door._form = None, None  # as a new kernel has them
    if not remembers:
        place().with_name(STATE).unlink()
    again = kit.ui.show(None if remembers else ready)
    (shown,) = again.run.children[-1].children
    assert ">done<" in shown.children[1].value
    assert again.plan.run.name == "cat-2"  # Train would begin another


def test_a_run_whose_folder_went_with_the_session_is_shown_from_where_it_was_copied(
    kernel, ready, tmp_path
):
    copy = place().parent / "cat.run"
    copy.mkdir(parents=True)
    text = "\n".join(to_line(event) for event in whole_run(5))
    (copy / "events.jsonl").write_text(text, "utf-8")
    form = Form(ready.replace(output_dir=str(tmp_path / "elsewhere"), output_name="dog"))
    form.memory.run_dir = str(tmp_path / "gone" / "cat.run")
    (shown,) = TrainBar(form).upper.slot.children
    assert ">done<" in shown.children[1].value


def test_the_finished_run_is_shown_again_where_a_later_one_failed_before_its_first_step(
    kernel, ready, tmp_path
):
    """That one left no folder, and its name had a number."""
    done = tmp_path / "out" / "cat.run"
    done.mkdir(parents=True)
    text = "\n".join(to_line(event) for event in whole_run(5))
    (done / "events.jsonl").write_text(text, "utf-8")
    form = Form(ready.replace(output_dir=str(tmp_path / "out"), output_name="cat"))
    form.memory.run_dir = str(tmp_path / "out" / "cat-2.run")
    (shown,) = TrainBar(form).upper.slot.children
    assert ">done<" in shown.children[1].value


def test_what_stands_in_the_way_is_told_between_the_bar_and_the_run(script, ready):
    """Beneath the picture of a finished run nobody looks for it."""
    form = Form(ready)
    TrainBar(form)
    order = [form.top, form.remedies.root, form.plan_line, form.run, form.views.root, form.end]
    assert [part for part in form.root.children if part in order] == order


def test_notices_are_told_once_while_it_trains(script, ready):
    form = Form(ready)
    TrainBar(form).upper.button.click()
    assert form.plan_line.layout.display == "none"
    script.let(0)
    Session.current.join(20)
    until(lambda: form.plan_line.layout.display is None)


def test_without_anything_remembered_the_form_opens_blank_on_own_pictures(kernel):
    form = kit.ui.show()
    assert form.settings == Settings()
    assert form.sentence.value == ("<div>Still to choose: a base model (2) and pictures (3).</div>")
    assert form.mistakes == ()


def test_a_form_of_an_earlier_version_that_holds_the_untouched_example_opens_blank(kernel):
    remember(example())
    assert kit.ui.show().settings == Settings()
    door._form = None
    place().with_name(STATE).unlink(missing_ok=True)
    remember(example().replace(output_name="mine"))
    assert kit.ui.show().settings.folders.output_name == "mine"


def test_results_are_of_this_kernels_run(script, ready):
    assert repr(kit.ui.results()) == "no LoRA file yet"
    session = Session.start(kit.ui.show(ready).plan)
    script.let(0)
    session.join(20)
    assert repr(kit.ui.results()) == "cat.safetensors"


def test_the_refusal_is_an_error_that_cells_show_quietly(script, small_plan):
    Session.start(small_plan)
    with pytest.raises(KitError, match="one LoRA at a time"):
        Session.start(small_plan)


def test_what_stands_in_the_form_is_added_to_the_queue_beneath_the_bar(
    ready, kernel, tmp_path, monkeypatch
):
    monkeypatch.setenv("LORA_KIT_QUEUE", str(tmp_path / "queue"))
    bar = TrainBar(Form(ready))
    assert bar.lower.queue_place.children == ()
    bar.lower.queue_button.click()
    [line, rows] = bar.lower.queue_place.children[1:3]
    assert "cat waits as run 1" in line.value
    [row] = rows.children
    assert "<b>cat</b>, waiting" in row.children[0].value
    bar.upper.queue_button.click()
    assert bar.lower.queue_place.children == ()
    assert "is in the queue already" in bar.upper.queue_place.children[1].value
    close = bar.upper.queue_place.children[0].children[-1]
    assert close.description == "Close"
    close.click()
    assert bar.upper.queue_place.children == ()


def test_train_tells_that_the_run_waits_in_the_queue_too(script, ready, tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_KIT_QUEUE", str(tmp_path / "queue"))
    bar = TrainBar(Form(ready))
    bar.upper.queue_button.click()
    bar.upper.button.click()
    assert "cat waits in the queue, too, as run 1" in bar.upper.line.value
    bar.upper.queue_button.click()  # and the other way round, while it trains
    told = bar.upper.queue_place.children[1].value
    assert "cat trains at this moment, in this kernel" in told
    script.let(0)
    Session.current.join(20)


def test_a_folder_that_a_waiting_run_reads_keeps_its_name(ready, kernel, tmp_path, monkeypatch):
    """Renamed after a new trigger word, it would teach the waiting run that word."""
    monkeypatch.setenv("LORA_KIT_QUEUE", str(tmp_path / "queue"))
    form = Form(ready)
    bar = TrainBar(form)
    arranged = tmp_path / "set" / "10_zxcat cat"
    arranged.mkdir(parents=True)
    form.pictures_in._arranged = arranged
    bar.upper.queue_button.click()
    form.pictures_in.use_words(Words("other", "cat"))
    assert arranged.is_dir()


def test_what_cannot_be_trained_is_not_added_to_the_queue(ready, kernel, tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_KIT_QUEUE", str(tmp_path / "queue"))
    bar = TrainBar(Form(ready.replace(train_data_dir="/nowhere")))
    bar.upper.queue_button.click()
    assert "kit-problem" in bar.upper.line.value
    assert not (tmp_path / "queue").exists()
