"""Training as a person does it: a field before Train, the buttons, a stop, a resumed run."""

import re

import pytest
from playwright.sync_api import expect

WAIT = "await kit.wait()"
LONG = 240_000  # milliseconds; torch takes a while to load on a busy machine
STEP = re.compile(r"step\s*[1-9]\d* of")


def cells(steps):
    return [f"import kit\nkit.show(kit.example(steps={steps}))", WAIT]


def state(notebook):
    return notebook.output.locator(".kit-state").locator("visible=true").first


def is_there(notebook):
    expect(notebook.output.locator(".kit-sum").first).to_contain_text("steps", timeout=60_000)


def begin(notebook, steps):
    notebook.open(cells(steps))
    notebook.run_all()
    is_there(notebook)
    notebook.button("Train").click()
    return notebook


def test_a_field_can_be_changed_again_while_a_cell_waits_for_train(notebook):
    """A page sends a second change only when the kernel has told that it handled the first."""
    notebook.open(cells(60))
    notebook.run_all()
    is_there(notebook)
    expect(notebook.output.filter(has_text="This cell waits for Train").first).to_be_visible()
    for steps in ("30", "36", "42"):
        notebook.fill("max_train_steps", steps)
        said = notebook.output.locator(".kit-sum").first
        expect(said).to_contain_text(f"{steps} steps", timeout=20_000)
    notebook.is_quiet()


@pytest.mark.long  # as test_training_in_lab.py, but that it goes on in the kernel that stopped it
def test_buttons_work_while_it_trains_and_a_stopped_run_goes_on(notebook):
    begin(notebook, 60)
    numbers = notebook.output.locator(".kit-numbers").first
    expect(numbers).to_contain_text(STEP, timeout=LONG)
    notebook.output.get_by_placeholder("a prompt for Sample now").fill("a red square, left")
    notebook.button("Sample now").click()
    expect(notebook.output).to_contain_text(["a red square, left"], timeout=LONG)
    notebook.button("Save now").click()
    expect(notebook.output.locator(".kit-notes").first).to_contain_text("-step", timeout=LONG)
    notebook.button("Stop").click()
    expect(state(notebook)).to_have_text("stopped", timeout=LONG)
    notebook.shot("stopped-light-1280")
    resume = notebook.output.locator("button", has_text="Resume from step").first
    expect(resume).to_be_visible(timeout=60_000)
    notebook.shot("resume-light-1280")
    resume.click()
    expect(state(notebook)).to_have_text("done", timeout=LONG)
    notebook.is_quiet()
