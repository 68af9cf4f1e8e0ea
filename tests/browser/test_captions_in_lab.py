"""Captions on the contact sheet, as a person edits them."""

from PIL import Image, ImageDraw
from playwright.sync_api import expect

SHOW = """import kit
kit.show(kit.Settings().replace(
    train_data_dir={images!r}, output_dir={output!r}, output_name="dog", resolution="512"))"""


def draw(folder, count):
    """Photographs' stand-ins, of several proportions; the last has no caption."""
    folder.mkdir(parents=True)
    for i in range(count):
        size = ((900, 600), (600, 900), (1600, 500))[i % 3]
        picture = Image.linear_gradient("L").resize(size).convert("RGB")
        ImageDraw.Draw(picture).ellipse((40, 40, 400, 400), (200, 30 * (i % 8), 60))
        picture.save(folder / f"{i:02}.jpg")
        if i < count - 1:
            (folder / f"{i:02}.txt").write_text(f"a ball, number {i}", "utf-8")
    return folder


def test_captions_are_edited_undone_and_given_a_trigger_word(notebook, tmp_path):
    folder = draw(tmp_path / "images" / "10_zib ball", 14)
    code = SHOW.format(images=str(folder.parent), output=str(tmp_path / "output"))
    notebook.open([code]).run_all()
    still = "Still to choose: a base model"  # pictures can be looked at before
    expect(notebook.output.locator(".kit-sum").first).to_contain_text(still, timeout=60_000)
    notebook.button("Look at the pictures").click()
    cards = notebook.output.locator(".kit-card")
    expect(cards).to_have_count(12)
    expect(notebook.output.locator(".kit-card img")).to_have_count(12)
    widths = "els => els.map(el => el.naturalWidth)"
    assert max(notebook.output.locator(".kit-card img").evaluate_all(widths)) == 256
    caption = notebook.output.get_by_label("Caption of 03.jpg")  # the name that is read aloud
    expect(caption).to_have_value("a ball, number 3")
    caption.fill("a red ball, number 3")
    caption.press("Tab")
    expect(cards.nth(3)).to_contain_text("Saved in 03.txt")
    assert (folder / "03.txt").read_text("utf-8") == "a red ball, number 3"
    notebook.button("Undo: caption of 03.jpg").click()
    expect(caption).to_have_value("a ball, number 3")
    assert (folder / "03.txt").read_text("utf-8") == "a ball, number 3"

    notebook.button("All captions").click()
    notebook.output.get_by_placeholder("zxdog", exact=True).fill("zib")
    notebook.button("Add to all").click()
    expect(notebook.output.locator(".kit-change ins").first).to_have_text("zib,")
    assert (folder / "00.txt").read_text("utf-8") == "a ball, number 0"
    notebook.shot("captions-trigger-1280", full_page=True)
    notebook.button("Change 13 captions").click()
    expect(caption).to_have_value("zib, a ball, number 3")
    assert (folder / "12.txt").read_text("utf-8") == "zib, a ball, number 12"
    assert not (folder / "13.txt").exists()  # the folder's word, which it is trained on, has it
    notebook.button("Next").click()
    expect(cards).to_have_count(2)
    expect(cards.nth(1)).to_contain_text("no caption: trains on “zib ball”")
    notebook.button("Undo: add zib in front").click()
    expect(notebook.output.get_by_label("Caption of 12.jpg")).to_have_value("a ball, number 12")
    notebook.is_quiet()
