import pytest
from PIL import Image

from kit.dataset.caption_editing import JOURNAL
from kit.planning import plan
from kit.ui.sheet.all_captions import SHOWN, marked
from kit.ui.sheet.contact_sheet import ContactSheet


@pytest.fixture
def folder(images):
    for i, text in enumerate(("red, cat, sofa", "cat, blue", "Red, garden")):
        (images / "4_cat" / f"{i}.txt").write_text(text, "utf-8")
    return images / "4_cat"


@pytest.fixture
def sheet(settings, folder):
    sheet = ContactSheet(lambda: sheet.update(plan(sheet.settings)))
    sheet.settings = settings
    sheet.update(plan(settings))
    sheet.all_button.click()
    return sheet


def texts(folder):
    return [(folder / f"{i}.txt").read_text("utf-8") for i in range(3)]


def test_it_opens_with_the_pictures_beneath_it(sheet):
    assert len(sheet.cards.children) == 3
    assert sheet.all_captions.root.layout.display is None
    sheet.all_button.click()
    assert sheet.all_captions.root.layout.display == "none"


def test_a_trigger_word_is_shown_then_added_then_undone(sheet, folder):
    every, before = sheet.all_captions, texts(folder)
    every.trigger.value = " zib "
    every.add_trigger.click()
    assert texts(folder) == before
    assert "Add zib in front: 3 of 3 captions would change." in every.preview.value
    assert "<ins>zib, </ins>red, cat, sofa" in every.preview.value
    assert every.confirm.description == "Change 3 captions"
    every.confirm.click()
    assert texts(folder) == ["zib, red, cat, sofa", "zib, cat, blue", "zib, Red, garden"]
    assert every.preview.value == ""
    assert f"3 captions changed. The old texts stay in {JOURNAL}" in sheet.line.value
    assert [card.text.value for card in sheet._cards] == texts(folder)
    sheet.undo_button.click()
    assert texts(folder) == before


def test_a_trigger_word_is_removed_from_all(sheet, folder):
    (folder / "0.txt").write_text("zib cat, red", "utf-8")
    (folder / "1.txt").write_text("zib, blue", "utf-8")
    sheet.on_change()
    every = sheet.all_captions
    every.trigger.value = "zib"
    every.remove_trigger.click()
    assert "2 of 3 captions would change" in every.preview.value
    every.confirm.click()
    assert texts(folder) == ["cat, red", "blue", "Red, garden"]


def test_cancel_changes_nothing(sheet, folder):
    before = texts(folder)
    sheet.all_captions.trigger.value = "zib"
    sheet.all_captions.add_trigger.click()
    sheet.all_captions.cancel.click()
    assert sheet.all_captions.preview.value == ""
    sheet.all_captions.confirm.click()  # it is hidden, and asks for nothing now
    assert texts(folder) == before


def test_tags_are_listed_by_how_many_captions_hold_them(sheet):
    names = [name for name, _ in sheet.all_captions.tags.options]
    assert names[:2] == ["cat  (2)", "blue  (1)"]
    sheet.all_captions.find.value = "re"
    assert [tag for _, tag in sheet.all_captions.tags.options] == ["red", "Red"]


def test_tags_are_removed_replaced_and_added(sheet, folder):
    every = sheet.all_captions
    every.tags.value = ("red", "Red")
    every.new.value = "crimson"
    every.replace.click()
    assert "<del>red</del><ins>crimson</ins>" in every.preview.value
    every.confirm.click()
    assert texts(folder) == ["crimson, cat, sofa", "cat, blue", "crimson, garden"]
    assert every.tags.options[0][1] == "cat"
    every.tags.value = ("cat",)
    every.remove.click()
    every.confirm.click()
    assert texts(folder) == ["crimson, sofa", "blue", "crimson, garden"]
    every.new.value, every.place.value = "photo", "in front"
    every.add.click()
    every.confirm.click()
    assert texts(folder) == ["photo, crimson, sofa", "photo, blue", "photo, crimson, garden"]
    assert sheet.undo_button.description == "Undo: add photo in front"


def test_what_is_missing_is_asked_for(sheet):
    every = sheet.all_captions
    for button, text in (
        (every.add_trigger, "Write the trigger word first"),
        (every.add, "Write the new tag first"),
        (every.remove, "Choose one or more tags"),
    ):
        button.click()
        assert text in every.preview.value
        assert every._buttons.layout.display == "none"


def test_an_edit_is_of_the_pictures_that_are_looked_at(sheet, folder, settings):
    other = folder.parent / "1_dog"
    reg = folder.parents[1] / "reg" / "1_cat"
    for place in (other, reg):
        place.mkdir(parents=True)
        Image.new("RGB", (128, 128), (1, 2, 3)).save(place / "x.png")
        (place / "x.txt").write_text("mine", "utf-8")
    sheet.settings = settings.replace(reg_data_dir=str(reg.parent))
    sheet.on_change()
    every = sheet.all_captions
    every.trigger.value = "zib"
    every.add_trigger.click()
    assert "4 of 4 captions would change" in every.preview.value  # not the regularisation picture
    sheet.choice.value = "Folder 4_cat"
    assert "3 of 3 captions would change" in every.preview.value
    every.confirm.click()
    assert (other / "x.txt").read_text("utf-8") == "mine"
    assert (reg / "x.txt").read_text("utf-8") == "mine"


def test_a_picture_without_a_caption_gets_its_first_file(sheet, folder):
    (folder / "2.txt").unlink()
    sheet.on_change()
    every = sheet.all_captions
    every.trigger.value = "zib"
    every.add_trigger.click()
    assert "1 picture gets its first caption file" in every.preview.value
    every.confirm.click()
    assert (folder / "2.txt").read_text("utf-8") == "zib, cat"  # cat is the folder's word
    sheet.undo_button.click()
    assert not (folder / "2.txt").exists()


def test_settings_that_meet_a_trigger_word_are_told(sheet, settings):
    def advice(**changes):
        sheet.settings = settings.replace(**changes)
        sheet.on_change()
        sheet.all_captions.trigger.value = "zib"
        sheet.all_captions.add_trigger.click()
        return sheet.all_captions.preview.value

    assert "Keep n tokens = 1 holds it in front" in advice(shuffle_caption=True)
    assert "Keep n tokens = 2 counts it" in advice(shuffle_caption=True, keep_tokens=2)
    assert "Caption prefix puts it in front" in advice(caption_prefix="zib")
    assert "Keep n tokens" not in advice()


def test_only_some_captions_are_shown_and_the_others_counted(sheet, folder):
    for i in range(3, SHOWN + 5):
        Image.new("RGB", (128, 128), (0, i, 0)).save(folder / f"{i}.png")
    sheet.on_change()
    sheet.all_captions.trigger.value = "zib"
    sheet.all_captions.add_trigger.click()
    assert sheet.all_captions.preview.value.count("<b>") == SHOWN
    assert "and 5 more" in sheet.all_captions.preview.value


def test_what_cannot_be_written_is_told_and_nothing_changed(sheet, folder):
    before = texts(folder)
    (folder / JOURNAL).mkdir()
    sheet.all_captions.trigger.value = "zib"
    sheet.all_captions.add_trigger.click()
    sheet.all_captions.confirm.click()
    assert "4_cat cannot be written" in sheet.all_captions.preview.value
    assert texts(folder) == before


def test_both_texts_are_told_in_one_and_escaped():
    assert marked("a <b>, c", "a <b>, d") == "a &lt;b&gt;, <del>c</del><ins>d</ins>"
    assert marked("a", "<x>, a") == "<ins>&lt;x&gt;, </ins>a"
