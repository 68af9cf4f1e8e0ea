"""The form as a person uses it."""

import time

from playwright.sync_api import expect

SHOW = ["import kit\nkit.show(kit.example())"]


def open_form(notebook):
    notebook.open(SHOW)
    began = time.monotonic()
    notebook.run_all()
    expect(notebook.output.locator(".kit-sum").first).to_contain_text("steps", timeout=60_000)
    print(f"the form is there {time.monotonic() - began:.1f} s after Run all")
    return notebook


def test_the_form_tells_what_is_wrong_while_one_types(notebook):
    open_form(notebook)
    notebook.shot("form-light-1280")
    notebook.output.get_by_placeholder("Search all settings").fill("rank")
    # Before, the rank's row is that of the few, which goes away while one types in it.
    expect(notebook.output.locator(".kit-f-unet_lr").locator("visible=true")).to_have_count(0)
    rank = notebook.field("network_dim")
    rank.fill("9999")
    problem = notebook.output.locator(".kit-f-network_dim .kit-problem").locator("visible=true")
    expect(problem.first).to_contain_text("from 1 to 1024")
    expect(notebook.output.locator(".kit-plan")).to_contain_text("Not ready to train")
    notebook.shot("form-problem-1280")
    rank.fill("8")
    expect(notebook.output.locator(".kit-sum").first).to_contain_text("steps")
    notebook.output.get_by_placeholder("Search all settings").fill("")
    notebook.button("Look at the pictures").click()
    expect(notebook.output.locator(".kit-card img").first).to_be_visible()
    notebook.output.locator(".kit-card").first.scroll_into_view_if_needed()
    notebook.shot("images-light-1280")
    notebook.page.set_viewport_size({"width": 800, "height": 1400})
    notebook.theme("Dark")
    notebook.button("Basic").click()
    notebook.output.locator(".kit").scroll_into_view_if_needed()
    notebook.still()
    notebook.shot("form-dark-800")
    notebook.theme("Light")
    notebook.is_quiet()
