import io
import re

from PIL import Image

from kit.dataset.buckets import BucketFit
from kit.planning import plan
from kit.ui import Form
from kit.ui.sheet.contact_sheet import PER_PAGE, ContactSheet, cut_thumbnail


def test_nothing_is_read_before_it_is_asked_for(settings, monkeypatch):
    monkeypatch.setattr("kit.ui.sheet.contact_sheet.open_upright", lambda path: 1 / 0)
    form = Form(settings)
    assert form.images.sheet.value == ""
    assert not form.images.open_button.disabled


def test_each_image_stands_there_with_its_bucket_and_its_captions(settings):
    sheet = ContactSheet()
    sheet.update(plan(settings))
    sheet.open_button.click()
    assert sheet.sheet.value.count("<img") == 3
    assert sheet.sheet.value.count("a cat number 1") == 1  # the same in every epoch
    assert "128 x 128 to 128 x 128, 4 times an epoch" in sheet.sheet.value
    sheet.open_button.click()
    assert sheet.sheet.value == ""


def test_captions_are_shown_as_they_are_trained(settings, images):
    (images / "4_cat" / "0.txt").write_text("one, two, three, four, five, six", "utf-8")
    sheet = ContactSheet()
    sheet.update(plan(settings.replace(shuffle_caption=True, caption_prefix="zib")))
    sheet.open_button.click()
    items = [part.split("</li>")[0] for part in sheet.sheet.value.split("<li>")[1:4]]
    assert len(set(items)) > 1
    assert all(set(item.split(", ")) == set(items[0].split(", ")) for item in items)


def test_what_is_not_read_of_a_caption_stands_beneath_it(settings, images):
    long = ", ".join(["red"] * 37 + ["green", "blue"])  # 77 tokens with the commas
    (images / "4_cat" / "1.txt").write_text(f"{long}, {'a yellow flower, ' * 20}", "utf-8")
    (images / "4_cat" / "0.txt").write_text(f"{long}\nsecond\nthird", "utf-8")
    sheet = ContactSheet()
    sheet.update(plan(settings))
    sheet.open_button.click()
    assert sheet.sheet.value.count("77 tokens, 75 are read; not read: blue<") == 1
    unread = re.search(
        r"are read; not read: (blue, a yellow flower, [^<]*) [.]{3}<", sheet.sheet.value
    )
    assert set(unread[1].split()) == {"blue,", "a", "yellow", "flower,"}
    assert sheet.sheet.value.count("2 more lines are not read") == 1
    sheet.update(plan(settings.replace(max_token_length=225, enable_wildcard=True)))
    assert "not read" not in sheet.sheet.value


def test_a_large_set_is_turned_page_by_page(settings, images):
    for i in range(3, 30):
        Image.new("RGB", (128, 128)).save(images / "4_cat" / f"{i:02}.png")
    sheet = ContactSheet()
    sheet.update(plan(settings))
    sheet.open_button.click()
    assert sheet.sheet.value.count("<img") == PER_PAGE
    sheet.next_button.click()
    sheet.next_button.click()
    assert sheet.sheet.value.count("<img") == 30 - 2 * PER_PAGE
    sheet.update(None)
    assert sheet.sheet.value == ""
    assert sheet.open_button.disabled


def test_what_is_cut_away_is_dark():
    picture = Image.new("RGB", (200, 100), (200, 200, 200))
    data = cut_thumbnail(picture, BucketFit(bucket=(100, 100), resized=(200, 100)))
    small = Image.open(io.BytesIO(data))
    assert small.size == (200, 100)
    assert small.getpixel((10, 50))[0] < 100
    assert small.getpixel((100, 50))[0] > 190
