import io
import json
import threading

import pytest
from PIL import Image

from kit.dataset.caption_editing import JOURNAL
from kit.planning import plan
from kit.ui import Form
from kit.ui.sheet.contact_sheet import PER_PAGE, ContactSheet


class Sheet(ContactSheet):
    """A sheet whose plan is drawn anew after every change, as the form's is."""

    def __init__(self, settings, **more):
        super().__init__(self.plan_anew, **more)
        self.settings = settings
        self.plan_anew()

    def plan_anew(self):
        self.update(plan(self.settings))

    def opened(self):
        self.open()
        self.thumbnails.finish()
        return self

    @property
    def shown(self):
        """The cards that are on the page."""
        return self._cards[: len(self.cards.children)]

    def facts(self):
        return [card.facts.value for card in self.shown]

    def texts(self):
        return [card.text.value for card in self.shown]

    def drawn(self):
        return [card for card in self.shown if "<img" in card.picture.value]


@pytest.fixture
def sheet(settings):
    return Sheet(settings).opened()


def more_pictures(images, count):
    for i in range(3, count):
        Image.new("RGB", (128, 128), (0, i, 0)).save(images / "4_cat" / f"{i:03}.png")


def test_nothing_is_read_before_it_is_asked_for(settings, monkeypatch):
    monkeypatch.setattr("kit.ui.sheet.thumbnails.open_upright", lambda path, about: 1 / 0)
    monkeypatch.setattr("kit.ui.sheet.pictures.picture_findings", lambda *_: 1 / 0)
    form = Form(settings)
    assert form.images.cards.children == ()
    assert not form.images.open_button.disabled


def test_each_picture_stands_there_with_its_bucket_and_its_caption(sheet):
    assert len(sheet.drawn()) == 3
    assert sheet.texts() == [f"a cat number {i}" for i in range(3)]
    assert "128 x 128 to 128 x 128, 4 times an epoch" in sheet.facts()[0]
    assert "Pictures 1 to 3 of 3; 3 have captions, 0 have findings" in sheet.summary.value
    sheet.open_button.click()
    assert sheet.cards.children == ()
    assert sheet.summary.value == ""


def test_captions_are_shown_as_they_are_trained_where_that_is_not_as_written(settings, images):
    (images / "4_cat" / "0.txt").write_text("one, two, three, four, five, six", "utf-8")
    sheet = Sheet(settings.replace(shuffle_caption=True, caption_prefix="zib")).opened()
    items = [part.split("</li>")[0] for part in sheet.facts()[0].split("<li>")[1:]]
    assert len(set(items)) > 1
    assert all(set(item.split(", ")) == set(items[0].split(", ")) for item in items)
    assert sheet.texts()[0] == "one, two, three, four, five, six"


def test_an_edited_caption_is_saved_planned_and_undone(sheet, images):
    sheet.shown[1].text.value = "zib, a blue cat"
    assert (images / "4_cat" / "1.txt").read_text("utf-8") == "zib, a blue cat"
    assert plan(sheet.settings).images[1].caption == "zib, a blue cat"
    assert "Saved in 1.txt." in sheet.shown[1].line.value
    assert sheet.undo_button.description == "Undo: caption of 1.png"
    sheet.undo_button.click()
    assert sheet.texts()[1] == "a cat number 1"
    assert (images / "4_cat" / "1.txt").read_text("utf-8") == "a cat number 1"
    assert sheet.undo_button.layout.display == "none"
    assert "Undone: caption of 1.png. 1.txt is as before." in sheet.line.value


def test_an_edited_caption_is_another_data_set(sheet):
    before = plan(sheet.settings).run.fingerprint
    sheet.shown[0].text.value = "another"
    assert plan(sheet.settings).run.fingerprint != before


def test_an_edit_of_an_earlier_session_can_be_undone(sheet, settings):
    sheet.shown[0].text.value = "another"
    later = Sheet(settings).opened()
    later.undo_button.click()
    assert later.texts()[0] == "a cat number 0"


def test_a_picture_without_a_caption_says_what_it_is_trained_on(settings, images):
    (images / "4_cat" / "2.txt").unlink()
    sheet = Sheet(settings).opened()
    card = sheet.shown[2]
    assert (card.text.value, card.text.placeholder) == ("", "cat (no caption file)")
    assert "no caption: trains on “cat”" in card.facts.value
    card.text.value = "a cat on a mat"
    assert (images / "4_cat" / "2.txt").read_text("utf-8") == "a cat on a mat"
    assert "no caption" not in sheet.facts()[2]
    sheet.undo_button.click()
    assert not (images / "4_cat" / "2.txt").exists()


def test_a_blank_caption_is_told_to_be_one(sheet):
    sheet.shown[0].text.value = "  "
    assert "trained without any words" in sheet.shown[0].line.value
    assert "trains without any words" in sheet.facts()[0]


def test_what_cannot_be_saved_stays_as_it_was_typed(sheet, images):
    (images / "4_cat" / JOURNAL).mkdir()
    card = sheet.shown[0]
    card.text.value = "a <b>new</b> one"
    assert "4_cat cannot be written" in card.line.value
    assert "What you typed stays here" in card.line.value
    sheet.plan_anew()
    assert card.text.value == "a <b>new</b> one"
    assert "What you typed stays here" in card.line.value
    assert (images / "4_cat" / "0.txt").read_text("utf-8") == "a cat number 0"
    (images / "4_cat" / JOURNAL).rmdir()
    card.text.value = "a new one"
    assert "Saved in 0.txt" in card.line.value
    assert card.text.value == "a new one"


def test_names_and_captions_are_escaped(settings, images):
    name = "<img src=x onerror=alert(1)>.png"
    Image.new("RGB", (128, 128)).save(images / "4_cat" / name)
    (images / "4_cat" / name).with_suffix(".txt").write_text("<i>x</i>\n<u>y</u>", "utf-8")
    sheet = Sheet(settings.replace(enable_wildcard=True, caption_prefix="<s>")).opened()
    card = next(card for card in sheet.shown if "onerror" in card.facts.value)
    for part in (card.facts.value, card.picture.value, card.line.value):
        assert not any(tag in part for tag in ("<img src=x", "<i>x", "<u>", "<s>"))
    assert "<" not in card.text.description
    assert card.text.value == "<i>x</i>\n<u>y</u>"


def test_a_large_set_is_turned_page_by_page(settings, images):
    more_pictures(images, 30)
    sheet = Sheet(settings).opened()
    assert len(sheet.shown) == PER_PAGE
    sheet.next_button.click()
    sheet.next_button.click()
    assert len(sheet.shown) == 30 - 2 * PER_PAGE
    assert sheet.page.value == 2
    sheet.page.value = 0
    assert len(sheet.shown) == PER_PAGE
    sheet.update(None)
    assert sheet.cards.children == ()
    assert sheet.open_button.disabled


def test_a_page_that_is_turned_shows_its_own_pictures(settings, images):
    more_pictures(images, 30)
    sheet = Sheet(settings).opened()
    names = [card.facts.value.split("</div>")[0] for card in sheet.shown]
    sheet.next_button.click()
    sheet.thumbnails.finish()
    others = [card.facts.value.split("</div>")[0] for card in sheet.shown]
    assert not set(names) & set(others)
    for card in sheet.drawn():
        name = card.facts.value.split(">")[1].split("<")[0]
        assert f'alt="{name}"' in card.picture.value
    assert len(sheet.drawn()) == PER_PAGE


def test_one_looks_at_the_pictures_with_findings_alone(settings, images):
    more_pictures(images, 20)
    sheet = Sheet(settings).opened()
    assert [name for name, _ in sheet.choice.options] == [
        "All pictures (20)", "With findings (17)", "Without a caption (17)",
    ]  # fmt: skip
    assert sheet.choice.value == "All pictures"
    sheet.choice.value = "With findings"
    assert "Pictures 1 to 12 of 17; 0 have captions" in sheet.summary.value
    sheet.next_button.click()
    sheet.shown[0].text.value = "now with a caption"
    assert sheet.choice.value == "With findings"
    assert sheet.choice.options[1][0] == "With findings (16)"


def test_no_picture_takes_the_place_of_one_that_gets_its_caption(settings, images):
    more_pictures(images, 6)
    sheet = Sheet(settings).opened()
    sheet.choice.value = "Without a caption"
    names = [card.text.description for card in sheet.shown]
    assert len(names) == 3
    sheet.shown[0].text.value = "first"
    sheet.shown[1].text.value = "second"
    assert [card.text.description for card in sheet.shown] == names
    assert (images / "4_cat" / "003.txt").read_text("utf-8") == "first"
    assert (images / "4_cat" / "004.txt").read_text("utf-8") == "second"
    sheet.choice.value = "All pictures"
    sheet.choice.value = "Without a caption"
    assert [card.text.description for card in sheet.shown] == names[2:]


def test_no_thumbnail_of_another_page_comes_late(settings, images, monkeypatch):
    more_pictures(images, 30)
    slow = threading.Event()

    def opened(path, about):
        assert slow.wait(10)
        return Image.open(path)

    monkeypatch.setattr("kit.ui.sheet.thumbnails.open_upright", opened)
    sheet = Sheet(settings)
    sheet.open()
    sheet.next_button.click()
    assert sheet.drawn() == []
    slow.set()
    sheet.thumbnails.finish()
    for card in sheet.shown:
        assert f'alt="{card.text.description.removeprefix("Caption of ")}"' in card.picture.value


def test_regularisation_pictures_and_folders_are_looked_at_by_themselves(settings, images):
    for name, i in (("2_dog", 7), ("../reg/1_cat", 8)):
        folder = images / name
        folder.mkdir(parents=True)
        Image.new("RGB", (128, 128), (i, 0, 0)).save(folder / "a.png")
    sheet = Sheet(settings.replace(reg_data_dir=str(images.parent / "reg"))).opened()
    assert [value for _, value in sheet.choice.options] == [
        "Training pictures", "Regularisation pictures", "With findings", "Without a caption",
        "Folder 2_dog", "Folder 4_cat",
    ]  # fmt: skip
    assert len(sheet.shown) == 4
    sheet.choice.value = "Regularisation pictures"
    assert [", regularisation" in text for text in sheet.facts()] == [True]
    sheet.choice.value = "Folder 2_dog"
    assert len(sheet.shown) == 1


def test_a_metadata_file_is_named_where_the_caption_cannot_be_edited(settings, images, tmp_path):
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"0.png": {"caption": "one"}}), "utf-8")
    config = tmp_path / "data.json"
    subset = {"image_dir": str(images / "4_cat"), "metadata_file": str(meta)}
    config.write_text(json.dumps({"datasets": [{"subsets": [subset]}]}), "utf-8")
    sheet = Sheet(settings.replace(dataset_config=str(config), train_data_dir="")).opened()
    (card,) = sheet.shown
    assert card.text.disabled
    assert card.text.value == "one"
    assert "It stands in meta.json" in card.line.value


def test_a_picture_that_cannot_be_decoded_says_so(settings, images):
    path = images / "4_cat" / "1.png"
    sheet = Sheet(settings)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(data)
    sheet.opened()
    assert "cannot be read" in sheet.shown[1].picture.value
    assert len(sheet.drawn()) == 2


def test_thumbnails_are_not_made_in_the_thread_of_the_click(settings, monkeypatch):
    threads = []

    def opened(path, about):
        threads.append(threading.current_thread())
        return Image.open(path)

    monkeypatch.setattr("kit.ui.sheet.thumbnails.open_upright", opened)
    Sheet(settings).opened()
    assert len(threads) == 3
    assert threading.main_thread() not in threads


def test_a_change_of_settings_sends_no_picture_again(sheet):
    sent = []
    for card in sheet.shown:
        card.picture.observe(lambda change: sent.append(change), names="value")
    sheet.settings = sheet.settings.replace(epoch=9)
    sheet.plan_anew()
    sheet.thumbnails.finish()
    assert sent == []
    sheet.settings = sheet.settings.replace(resolution="64")
    sheet.plan_anew()
    sheet.thumbnails.finish()
    assert len(sheet.drawn()) == 3
    assert sent


def test_two_hundred_photographs_travel_as_thumbnails(settings, images):
    noise = Image.effect_noise((1600, 1200), 90).convert("RGB")
    for i in range(200):
        noise.putpixel((0, 0), (i, 0, 0))
        noise.save(images / "4_cat" / f"{i:03}.jpg", quality=95) if i < 24 else noise.crop(
            (0, 0, 160, 120)
        ).save(images / "4_cat" / f"{i:03}.jpg")
    sheet = Sheet(settings).opened()
    page = sum(len(card.picture.value) + len(card.facts.value) for card in sheet.shown)
    print(f"a page of {len(sheet.shown)}: {page / 1e3:.0f} kB")
    assert page < PER_PAGE * 50_000  # noise is the worst that a JPEG can hold
    assert len(sheet.cards.children) == PER_PAGE


def test_what_is_cut_away_is_dark():
    from kit.dataset.buckets import BucketFit
    from kit.ui.sheet.thumbnails import cut_thumbnail

    picture = Image.new("RGB", (200, 100), (200, 200, 200))
    data = cut_thumbnail(picture, BucketFit(bucket=(100, 100), resized=(200, 100)))
    small = Image.open(io.BytesIO(data))
    assert small.size == (200, 100)
    assert small.getpixel((10, 50))[0] < 100
    assert small.getpixel((100, 50))[0] > 190


def test_the_form_plans_anew_when_a_caption_changes(settings):
    form = Form(settings)
    form.images.open()
    form.images._cards[0].text.value = "a new one"
    assert form.plan.images[0].caption == "a new one"
    assert form.images._pictures.captions[0].text == "a new one"
