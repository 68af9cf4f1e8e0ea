"""What is planned and shown is what lies on the disk, also right after the words have changed."""

import pytest
from PIL import Image

from kit.dataset.incoming import Source
from kit.demo import BASE
from kit.ui.form.form import Form


@pytest.fixture
def form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    form = Form()
    yield form
    form.pictures_in.close()


def upload(form, tmp_path):
    """As the thread does that takes what the page has sent."""
    Image.new("RGB", (96, 64), (10, 90, 160)).save(tmp_path / "a.png")
    form.pictures_in._take_batch([Source(tmp_path / "a.png", "a.png")])


def test_a_plan_that_is_made_as_the_trigger_word_is_typed_names_pictures_that_are_there(
    form, tmp_path
):
    upload(form, tmp_path)
    form.start.trigger_word.value = "zxcup"
    form.fields["pretrained_model_name_or_path"].value = str(BASE)
    form.images.open()
    for word in ("zxdog", "zxcat"):
        form.start.trigger_word.value = word
        (image,) = form.plan.images  # Train, pressed now, would start from this
        assert image.path.is_file()
        assert image.caption == word
        form.images.thumbnails.finish()
        (card,) = form.images.cards.children
        assert "<img" in card.children[0].value
