"""Every state of the form, looked at: nothing scrolls within it, hangs out of it or is too pale.

With LORA_KIT_SHOTS each is drawn at 1280, 800 and 400 pixels, light and dark; else at two of them.
"""

import os
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.test_looks_in_lab import CUT, is_sound, look_at, nameless

DRAWS = "LORA_KIT_SHOTS" in os.environ
SIZES = [(w, t) for w in (1280, 800, 400) for t in ("Light", "Dark")] if DRAWS else [(400, "Dark")]
SHOW = ["import kit\nform = kit.show()"]
KOHYA = '{"LoRA_type": "Standard", "network_dim": 32, "max_train_epochs": 7, "output_name": "old"}'
EMBEDDED = "Small base to try it out (included)"


def look(notebook, name):
    """The state as it stands, at every size."""
    for width, theme in SIZES:
        notebook.page.set_viewport_size({"width": width, "height": 1400 if width > 400 else 2400})
        notebook.theme(theme)
        notebook.page.wait_for_timeout(250)
        look_at(notebook, 0)
        is_sound(notebook, f"state-{name}-{width}-{theme.lower()}")
    assert notebook.page.evaluate(CUT) == [], name
    notebook.page.set_viewport_size({"width": 1280, "height": 1400})
    notebook.theme("Light")


@pytest.fixture
def folder(tmp_path):
    for name in ("10_cat", "5_dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(3):
            picture = Image.linear_gradient("L").resize((640, 480 + 200 * i)).convert("RGB")
            picture.save(tmp_path / "images" / name / f"{i}.jpg")
    (tmp_path / "broken.zip").write_bytes(b"PK" + bytes(90_000))
    (tmp_path / "old.json").write_text(KOHYA)
    return tmp_path


def test_every_state_of_the_form_is_sound(notebook, folder: Path):
    output = notebook.output
    notebook.open(SHOW).run_all()
    expect(output.locator(".kit-start")).to_be_visible(timeout=60_000)
    look(notebook, "blank")
    output.locator("input[type=file][multiple]").first.set_input_files(folder / "broken.zip")
    expect(output.locator(".kit-arrived [role=alert]")).to_be_visible(timeout=30_000)
    look(notebook, "upload-refused")
    path = output.get_by_label("Or a folder or zip of this machine", exact=True)
    path.fill(str(folder / "images"))
    path.press("Tab")
    expect(output.locator(".kit-arrived")).to_contain_text("6 pictures", timeout=30_000)
    output.get_by_label("Model", exact=True).select_option(EMBEDDED)
    output.get_by_label("Trigger word", exact=True).fill("zxcat")
    output.get_by_label("Trigger word", exact=True).press("Tab")
    expect(output.locator(".kit-card img")).to_have_count(6, timeout=30_000)
    look(notebook, "pictures")
    notebook.button("All captions").click()
    output.get_by_label("Word for all", exact=True).fill("zxcat")
    notebook.button("Add to all").click()
    notebook.button("Prepare folders").click()
    look(notebook, "captions-and-folders")
    notebook.button("All settings").click()
    assert nameless(notebook)[0] == []
    if DRAWS:
        look(notebook, "all-settings")
    notebook.button("All captions").click()
    notebook.button("Prepare folders").click()
    notebook.button("Hide the pictures").click()
    notebook.button("Load settings").click()
    output.get_by_label("Settings file", exact=True).fill(str(folder / "old.json"))
    notebook.button("Load").click()
    expect(output.locator(".kit-changes").first).to_be_visible(timeout=30_000)
    look(notebook, "import")
    notebook.is_quiet()
