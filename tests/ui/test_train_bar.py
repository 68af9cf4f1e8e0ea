"""The Train button: what it starts, what it refuses, and what is shown again."""

from dataclasses import replace

import pytest

import kit.ui
from kit import catalog
from kit.errors import KitError
from kit.events import to_line
from kit.runs.run import RunRecord, write_record
from kit.ui import door
from kit.ui.form.form import Form
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


def test_train_starts_what_stands_in_the_form_and_shows_the_run_below(script, settings):
    bar = TrainBar(Form(settings))
    assert bar.button.description == "Train"
    bar.button.click()
    session = Session.current
    assert session.plan.run.name == "cat"
    assert bar.slot.children == (session.dashboard.root,)
    assert bar.button.disabled
    script.let(0)
    session.join(20)
    until(lambda: not bar.button.disabled)


def test_a_form_that_is_not_ready_says_why_and_starts_nothing(script, settings):
    form = Form(settings)
    bar = TrainBar(form)
    form.fields["network_dim"].value = "9999"
    bar.button.click()
    assert "network_dim" in bar.line.value
    form.fields["network_dim"].value = "8"
    form.fields["train_data_dir"].value = "/nowhere"
    bar.button.click()
    assert "does not exist" in bar.line.value
    assert Session.current is None


def test_a_second_train_is_refused_with_a_clear_text(script, settings):
    first, second = TrainBar(Form(settings)), TrainBar(Form(settings.replace(output_name="dog")))
    first.button.click()
    second.button.click()
    assert "A run is at work in this kernel: cat" in second.line.value
    assert Session.current.plan.run.name == "cat"


def test_showing_again_while_it_trains_shows_the_same_widgets(script, settings, kernel):
    form = kit.ui.show(settings)
    TrainBar(form).button.click()
    session = Session.current
    assert kit.ui.show() is form
    assert kernel == [form.root, form.root]
    script.let(0)
    session.join(20)
    again = kit.ui.show()  # it is over: the form opens anew, with the run below
    assert again is not form
    assert Session.current is session
    assert session.dashboard.root in again.root.children[-1].children


def test_an_unfinished_run_of_these_settings_is_offered_and_its_past_is_shown(kernel, small_plan):
    plan = replace(small_plan, run=replace(small_plan.run, from_step=20))
    plan.run.dir.mkdir(parents=True)
    write_record(plan.run.dir, RunRecord(plan.run.fingerprint, plan.seed, 20))
    lines = [to_line(event) for event in list(whole_run(60))[:22]]
    (plan.run.dir / "events.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    bar = TrainBar(Form(small_plan.settings))
    assert bar.button.description == "Resume from step 20"
    assert len(bar.slot.children) == 1
    assert ">stopped<" in bar.slot.children[0].children[1].value  # its title, after the style sheet


def test_the_button_offers_to_go_on_after_a_stop(script, settings, monkeypatch):
    bar = TrainBar(Form(settings))
    bar.button.click()
    session = Session.current
    assert script.began.wait(20)
    run = session.plan.run
    write_record(run.dir, RunRecord(run.fingerprint, session.plan.seed, 2))
    session.interrupt()
    session.join(20)
    until(lambda: bar.button.description == "Resume from step 2")


def test_a_kernel_that_starts_anew_brings_the_form_back(kernel, settings):
    form = kit.ui.show(settings)
    form.fill(settings.replace(network_dim=48))
    door._form = None
    assert kit.ui.show().settings.network.network_dim == 48


def test_without_anything_remembered_the_form_opens_with_the_example(kernel):
    assert kit.ui.show().settings.folders.output_name == "zib-ball"


def test_results_are_of_this_kernels_run(script, settings):
    assert repr(kit.ui.results()) == "no LoRA file yet"
    session = Session.start(kit.ui.show(settings).plan)
    script.let(0)
    session.join(20)
    assert repr(kit.ui.results()) == "cat.safetensors"


def test_the_refusal_is_an_error_that_cells_show_quietly(script, small_plan):
    Session.start(small_plan)
    with pytest.raises(KitError, match="one LoRA at a time"):
        Session.start(small_plan)
