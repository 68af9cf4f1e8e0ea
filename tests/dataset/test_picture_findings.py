import pytest
from PIL import Image

from kit.dataset.buckets import fit
from kit.dataset.caption_editing import captions_of
from kit.dataset.images import scan
from kit.dataset.layout import bucket_rule
from kit.dataset.picture_findings import picture_findings
from kit.settings import Settings


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "10_zib ball"
    folder.mkdir()
    return folder


def found(folder, **settings):
    settings = Settings().replace(resolution="128", min_bucket_reso=64, **settings)
    images = scan(str(folder.parent)).images
    rule = bucket_rule(settings.images)
    fits = [fit((image.width, image.height), rule) for image in images]
    captions = captions_of(images, [settings])
    names = [image.path.name for image in images]
    return dict(zip(names, picture_findings(images, fits, captions, [settings]), strict=True))


def draw(folder, name, size=(128, 128), caption="a ball", colour=0):
    Image.new("RGB", size, (colour, 10, 10)).save(folder / name)
    if caption is not None:
        (folder / name).with_suffix(".txt").write_text(caption, "utf-8")


def test_a_good_picture_has_none(folder):
    draw(folder, "a.png")
    assert found(folder) == {"a.png": ()}


def test_a_missing_caption_says_what_is_trained_instead(folder):
    draw(folder, "a.png", caption=None)
    draw(folder, "b.png", caption="", colour=1)
    assert found(folder) == {
        "a.png": ("no caption: trains on “zib ball”",),
        "b.png": ("trains without any words",),
    }


def test_what_is_not_read_of_a_caption_is_told(folder):
    long = ", ".join(["red"] * 37 + ["green", "blue"])  # 77 tokens with the commas
    draw(folder, "a.png", caption=f"{long}\nsecond\nthird")
    assert found(folder)["a.png"] == (
        "77 tokens, 75 are read; not read: blue",
        "2 more lines are not read",
    )
    assert found(folder, max_token_length=225, enable_wildcard=True)["a.png"] == ()


def test_size_and_shape(folder):
    draw(folder, "small.png", (64, 80))
    draw(folder, "wide.png", (600, 150), colour=1)
    draw(folder, "tall.png", (100, 400), colour=2)
    told = found(folder)
    assert told["small.png"] == ("small for 128 x 128", "20% of it is cut away")
    assert told["wide.png"] == ("very wide: 4.0 to 1",)
    assert told["tall.png"][0] == "very tall: 4.0 to 1"
    assert (
        found(folder, bucket_no_upscale=False)["small.png"][0]
        == "small for 128 x 128: enlarged 2.0 times"
    )


def test_doubles_and_shared_captions(folder):
    draw(folder, "a.png")
    draw(folder, "b.png")
    draw(folder, "c.png", colour=9)
    draw(folder, "c.bmp", colour=9)
    told = found(folder)
    assert told["a.png"] == ("the same picture as b.png",)
    assert told["b.png"] == ("the same picture as a.png",)
    assert told["c.png"] == ("shares its caption file with c.bmp",)
