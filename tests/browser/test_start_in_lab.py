"""The first ten minutes: own pictures in five actions, the example in three, what reloads keep."""

import re

import numpy
import pytest
from PIL import Image, ImageFilter
from playwright.sync_api import expect

SHOW = ["import kit\nkit.show()"]
EMBEDDED = "Small base to try it out (included)"
LONG = 240_000  # milliseconds; torch takes a while to load on a busy machine
PICTURES_ARE_DRAWN = (
    "() => [...document.querySelectorAll('.kit .kit-open img')].every(i => i.naturalWidth > 0)"
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Six pictures as a camera gives them: 12 megapixels' shape, soft, with noise; no captions."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = numpy.random.default_rng(5)
    for i in range(6):
        shape = (480, 640, 3) if i % 2 else (640, 480, 3)
        coarse = rng.integers(0, 255, (6, 8, 3), dtype=numpy.uint8)
        photo = Image.fromarray(coarse).resize(shape[1::-1], Image.Resampling.BICUBIC)
        photo = photo.filter(ImageFilter.GaussianBlur(4))
        photo.save(folder / f"IMG_{i:04}.jpg", quality=90)
    return sorted(folder.iterdir())


class Actions:
    """What a person does, counted."""

    def __init__(self, notebook):
        self.notebook, self.count = notebook, 0

    def run_all(self):
        self.count += 1
        self.notebook.run_all()
        expect(self.notebook.output.locator(".kit-start")).to_be_visible(timeout=60_000)

    def upload(self, files):
        self.count += 1
        self.notebook.output.locator("input[type=file][multiple]").first.set_input_files(files)

    def choose(self, label, option):
        self.count += 1
        self.notebook.output.get_by_label(label, exact=True).first.select_option(option)

    def type(self, label, text):
        self.count += 1
        control = self.notebook.output.get_by_label(label, exact=True).first
        control.fill(text)
        control.press("Tab")

    def press(self, name):
        self.count += 1
        self.notebook.button(name).click()


def sentence(notebook):
    return notebook.output.locator(".kit-sum").first


def test_five_actions_train_own_pictures(notebook, photographs):
    notebook.open(SHOW)
    do = Actions(notebook)
    do.run_all()
    expect(sentence(notebook)).to_contain_text("Still to choose")
    notebook.shot("start-blank-1280")
    do.upload(photographs)
    expect(notebook.output.locator(".kit-arrived")).to_contain_text("6 pictures", timeout=60_000)
    do.choose("Model", EMBEDDED)
    do.type("Trigger word", "zxcup")
    expect(sentence(notebook)).to_contain_text("6 images x 10 repeats", timeout=30_000)
    expect(notebook.output.locator(".kit-card img").first).to_be_visible(timeout=30_000)
    expect(notebook.button("Train")).to_be_enabled()
    notebook.shot("start-answered-1280")
    for width in (800, 400):
        notebook.page.set_viewport_size({"width": width, "height": 1400})
        notebook.theme("Dark")
        notebook.still()
        notebook.shot(f"start-answered-dark-{width}")
        box = notebook.output.locator(".kit").first.bounding_box()
        assert box["x"] + box["width"] <= width, f"the form is wider than {width} px"
        notebook.theme("Light")
    notebook.page.set_viewport_size({"width": 1280, "height": 1400})
    notebook.page.set_viewport_size({"width": 1280, "height": 900})
    do.press("Train")
    expect(notebook.output.locator(".kit-summary")).to_contain_text("6 pictures", timeout=30_000)
    the_run_is_in_view(notebook)
    notebook.page.set_viewport_size({"width": 1280, "height": 1400})
    numbers = notebook.output.locator(".kit-numbers").first
    expect(numbers).to_contain_text(re.compile(r"step\s*[1-9]"), timeout=LONG)
    notebook.shot("start-training-1280")
    notebook.page.set_viewport_size({"width": 1280, "height": 700})
    bar = notebook.output.locator(".kit-sticky")
    notebook.output.locator(".kit-end-bar").scroll_into_view_if_needed()
    notebook.page.wait_for_timeout(300)
    top = bar.bounding_box()["y"]
    assert 0 < top < 200, f"the bar is at {top:.0f} px, scrolled out of view"
    bar.get_by_role("button", name="Stop").click()
    expect(notebook.output.locator(".kit-state").first).to_have_text("stopped", timeout=LONG)
    notebook.shot("start-stopped-1280")
    assert do.count <= 5
    with notebook.page.expect_download() as waiting:
        notebook.output.locator("a.is-first").first.click()
    assert waiting.value.suggested_filename.startswith("zxcup")
    notebook.is_quiet()


def the_run_is_in_view(notebook):
    """Its head stands beneath the bar, although the questions above both have folded."""
    notebook.page.wait_for_timeout(2000)
    head = notebook.output.locator(".kit-run .kit-title").first.bounding_box()
    bar = notebook.output.locator(".kit-sticky").bounding_box()
    assert bar["y"] + bar["height"] <= head["y"] + 1, "the run's head is behind the bar"
    assert head["y"] < 600, "the run is below what is seen"


def test_three_actions_train_the_example_and_a_reload_in_any_state_loses_nothing(notebook):
    notebook.open(SHOW)
    do = Actions(notebook)
    do.run_all()
    do.press("Try the example")
    expect(sentence(notebook)).to_contain_text("24 steps", timeout=30_000)
    expect(notebook.button("Train")).to_be_enabled()
    do.press("Train")
    assert do.count == 3
    typed = "a red square, left"
    expect(notebook.output.locator(".kit-numbers").first).to_contain_text("step", timeout=LONG)
    notebook.output.get_by_placeholder("a prompt for Sample now").first.fill(f"{typed} --s 2")
    notebook.button("Sample now").click()
    prompts = notebook.output.locator(".kit-prompt")
    expect(prompts.filter(has_text=typed)).to_be_visible(timeout=LONG)
    notebook.shot("training-light-1280")
    expect(notebook.output.locator(".kit-state").first).to_have_text("done", timeout=LONG)
    expect(notebook.output.locator(".kit-chart svg polyline").first).to_be_visible()
    notebook.page.wait_for_function(PICTURES_ARE_DRAWN)
    notebook.page.set_viewport_size({"width": 1280, "height": 1900})
    notebook.still()
    notebook.shot("done-light-1280")
    notebook.page.set_viewport_size({"width": 800, "height": 1900})
    notebook.theme("Dark")
    notebook.still()
    notebook.shot("done-dark-800")
    notebook.theme("Light")
    notebook.page.set_viewport_size({"width": 1280, "height": 1400})
    notebook.button("Change").click()
    notebook.output.get_by_label("Trigger word", exact=True).first.fill("zxmine")
    notebook.output.get_by_label("Trigger word", exact=True).first.press("Tab")
    notebook.page.wait_for_timeout(1000)

    notebook.save()
    notebook.reload()  # the page
    expect(prompts.filter(has_text=typed)).to_be_visible(timeout=60_000)
    expect(notebook.button("Undo")).to_be_enabled()

    notebook.restart()
    notebook.run_all()  # the kernel
    expect(prompts.filter(has_text=typed)).to_be_visible(timeout=60_000)
    expect(notebook.output.locator(".kit-state").first).to_have_text("done")
    notebook.shot("start-restarted-1280")
    word = notebook.output.get_by_label("Trigger word", exact=True).first
    expect(word).to_have_value("zxmine")
    notebook.button("Undo").click()
    expect(word).to_have_value("zib")
    notebook.button("Undo").click()  # the example
    expect(sentence(notebook)).to_contain_text("Still to choose")
    notebook.is_quiet()
