"""The first ten minutes: own pictures in five actions, the example in three, what reloads keep."""

import numpy
import pytest
from PIL import Image, ImageFilter
from playwright.sync_api import expect

SHOW = ["import kit\nkit.show()"]
EMBEDDED = "Small base that comes with LoRA Kit (to try it out)"
LONG = 240_000  # milliseconds; torch takes a while to load on a busy machine


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Six pictures as a camera gives them: 12 megapixels' shape, soft, with noise; no captions."""
    folder = tmp_path_factory.mktemp("photographs") / "10_zxcup cup"
    folder.mkdir()
    rng = numpy.random.default_rng(5)
    for i in range(6):
        shape = (480, 640, 3) if i % 2 else (640, 480, 3)
        coarse = rng.integers(0, 255, (6, 8, 3), dtype=numpy.uint8)
        photo = Image.fromarray(coarse).resize(shape[1::-1], Image.Resampling.BICUBIC)
        photo = photo.filter(ImageFilter.GaussianBlur(4))
        photo.save(folder / f"IMG_{i:04}.jpg", quality=90)
    return folder.parent


class Actions:
    """What a person does, counted."""

    def __init__(self, notebook):
        self.notebook, self.count = notebook, 0

    def run_all(self):
        self.count += 1
        self.notebook.run_all()
        expect(self.notebook.output.locator(".kit-start")).to_be_visible(timeout=60_000)

    def fill(self, name, text):
        self.count += 1
        self.notebook.fill(name, text)

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
    print(notebook.complaints)
    do.run_all()
    expect(sentence(notebook)).to_contain_text("Still to choose")
    notebook.shot("start-blank-1280")
    print(notebook.complaints)
    do.fill("train_data_dir", str(photographs))
    print(notebook.complaints)
    do.choose("Model", EMBEDDED)
    print(notebook.complaints)
    do.type("Trigger word", "zxcup")
    expect(sentence(notebook)).to_contain_text("6 images x 10 repeats", timeout=30_000)
    notebook.shot("start-answered-1280")
    for width in (800, 400):
        notebook.page.set_viewport_size({"width": width, "height": 1400})
        notebook.page.wait_for_timeout(800)
        print(width, "sized", notebook.complaints)
        notebook.theme("Dark")
        print(width, "size", notebook.complaints)
        notebook.page.wait_for_timeout(800)
        print(width, "theme", notebook.complaints)
        notebook.shot(f"start-answered-dark-{width}")
        notebook.theme("Light")
    notebook.page.set_viewport_size({"width": 1280, "height": 1400})
    print(notebook.complaints)
    do.press("Train")
    expect(notebook.output.locator(".kit-summary")).to_contain_text("6 pictures", timeout=30_000)
    expect(notebook.output.locator(".kit-numbers").first).to_contain_text("step", timeout=LONG)
    notebook.page.wait_for_timeout(1500)
    notebook.shot("start-training-1280")
    notebook.button("Stop").click()
    expect(notebook.output.locator(".kit-state").first).to_have_text("stopped", timeout=LONG)
    assert do.count <= 5
    notebook.is_quiet()
