"""The notebook as a person uses it: run all, Train, steer, reload, stop, go on in a new kernel."""

from pathlib import Path

from playwright.sync_api import expect

import kit

NOTEBOOK = Path(kit.__file__).parents[1] / "notebooks" / "train.ipynb"


def button(notebook, name):
    """By a part of its name: an icon is a letter of it, too."""
    return notebook.output.get_by_role("button", name=name).locator("visible=true").first


def see(notebook, name):
    notebook.output.locator(".kit-title").first.scroll_into_view_if_needed()
    notebook.still()
    notebook.shot(name)


def test_a_run_is_started_steered_reloaded_stopped_and_gone_on_with(notebook):
    notebook.open(NOTEBOOK)
    notebook.run_all()
    state = notebook.output.locator(".kit-state").first
    numbers = notebook.output.locator(".kit-numbers").first
    expect(button(notebook, "Train")).to_be_visible(timeout=90_000)
    waits = notebook.output.get_by_text("This cell waits for Train")
    expect(waits.first).to_be_visible(timeout=30_000)
    button(notebook, "Try the example").click()
    button(notebook, "Train").click()
    expect(state).to_have_text("preparing", timeout=120_000)
    expect(button(notebook, "Train")).to_be_disabled()
    expect(numbers).to_contain_text("memory at most", timeout=180_000)
    notebook.output.get_by_placeholder("a prompt for Sample now").fill("a zib ball --s 2 --w 64")
    button(notebook, "Sample now").click()
    button(notebook, "Save now").click()
    notebook.output.get_by_placeholder("5e-5 or x0.5").fill("x0.5")
    button(notebook, "Change rate").click()
    expect(notebook.output.get_by_text("learning rate: ")).to_be_visible(timeout=60_000)
    expect(notebook.output.locator(".kit-newest a[href*='/files/']").first).to_be_visible()
    button(notebook, "Pause").click()
    expect(state).to_have_text("paused", timeout=60_000)
    see(notebook, "dashboard-light-1280")
    notebook.save()
    notebook.reload(busy=True)
    expect(state).to_have_text("paused", timeout=60_000)
    button(notebook, "Loss by noise level").click()
    expect(notebook.output.locator(".kit-chart svg text").first).to_contain_text("")
    notebook.page.set_viewport_size({"width": 800, "height": 1400})
    notebook.theme("Dark")
    see(notebook, "dashboard-dark-800")
    notebook.theme("Light")
    notebook.page.set_viewport_size({"width": 1280, "height": 1400})
    button(notebook, "Stop").click()
    expect(state).to_have_text("stopped", timeout=60_000)
    resume = button(notebook, "Resume from step")
    expect(resume).to_be_enabled(timeout=30_000)
    notebook.restart()
    notebook.run_all()
    expect(resume).to_be_enabled(timeout=60_000)
    resume.click()
    expect(state).to_have_text("done", timeout=240_000)
    see(notebook, "dashboard-done-1280")
    notebook.is_quiet()
