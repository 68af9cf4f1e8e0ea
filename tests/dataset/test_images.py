"""Finding images and captions, in tidy folders and in others."""

import io
import random
import warnings

import pytest
from PIL import Image

from kit.dataset.images import scan
from kit.errors import DatasetError
from tests.support.pictures import draw, folder_of


def noisy(ending="JPEG", size=(64, 48), **options):
    """The bytes of a picture that does not compress to nothing."""
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(buffer, ending, **options)
    return buffer.getvalue()


def refusal(*args, **kwargs):
    with pytest.raises(DatasetError) as caught:
        scan(*map(str, args), **kwargs)
    return str(caught.value)


# ---------------------------------------------------------------------------------- folders


def test_folders_give_repeats_and_words(tmp_path):
    root = folder_of(tmp_path, {"10_sks dog": [(64, 96)], "3_a_b_c": [(32, 32)], "1_": [(8, 8)]})
    found = {i.folder: (i.repeats, i.caption, i.width, i.height) for i in scan(str(root)).images}
    assert found == {
        "1_": (1, "", 8, 8),
        "10_sks dog": (10, "sks dog", 64, 96),
        "3_a_b_c": (3, "a_b_c", 32, 32),
    }


def test_everything_is_in_the_order_of_names(tmp_path):
    names = ["2_b/9.png", "2_b/10.png", "2_a/z.png", "10_c/a.JPG", "10_c/B.png"]
    shuffled = random.Random(3).sample(names, len(names))
    for name in shuffled:
        draw(tmp_path / name)
    found = [str(i.path.relative_to(tmp_path).as_posix()) for i in scan(str(tmp_path)).images]
    assert found == ["10_c/B.png", "10_c/a.JPG", "2_a/z.png", "2_b/10.png", "2_b/9.png"]


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp", "bmp", "PNG", "JPG", "Jpeg"])
def test_endings_are_known_in_any_case(tmp_path, ending):
    draw(tmp_path / "1_a" / f"x.{ending}")
    assert len(scan(str(tmp_path)).images) == 1


def test_hidden_files_and_folders_are_left_alone(one):
    (one / "10_cat" / "._sound.png").write_bytes(b"\x00\x05\x16\x07")  # macOS's AppleDouble
    draw(one / "10_cat" / ".thumbnail.png")
    draw(one / ".ipynb_checkpoints" / "sound.png")
    (one / "10_cat" / "Thumbs.db").write_bytes(b"x")
    result = scan(str(one))
    assert [image.path.name for image in result.images] == ["sound.png"]
    assert result.notices == ()


@pytest.mark.parametrize("name", ["cats", "0_cat", "-1_cat", "ten_cat", "cat_10", "10"])
def test_a_folder_without_a_number_of_repeats_is_skipped_and_told(one, name):
    draw(one / name / "a.png")
    result = scan(str(one))
    assert len(result.images) == 1
    [told] = [notice for notice in result.notices if notice.startswith(f"{name} is skipped")]
    meant = {"0_cat": "10_cat", "-1_cat": "10_cat"}.get(name, f"10_{name}")
    assert told.endswith(f"such as {meant}")


def test_a_folder_without_images_is_told(one):
    (one / "5_dog").mkdir()
    assert "5_dog holds no images and is skipped" in scan(str(one)).notices


def test_a_date_is_not_taken_for_repeats(one):
    draw(one / "20240105_holiday" / "a.png")
    assert "Rename the folder, for example to 10_20240105_holiday" in refusal(one)


def test_images_beside_the_folders_are_told(one):
    draw(one / "loose.png")
    assert "1 images lie directly in train_data_dir" in scan(str(one)).notices[0]


def test_a_flat_folder_is_used_with_its_own_repeats(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png")
    (tmp_path / "a.txt").write_text("a cat", "utf-8")
    result = scan(str(tmp_path), dataset_repeats=5)
    assert [(i.repeats, i.caption, i.folder) for i in result.images] == [
        (5, "a cat", tmp_path.name),
        (5, "", tmp_path.name),
    ]
    assert "1 image trained without any words: b.png" in result.notices


def test_a_flat_folder_and_named_folders_are_used_together(one):
    draw(one / "loose.png")
    result = scan(str(one), dataset_repeats=2)
    assert [(i.path.name, i.repeats) for i in result.images] == [
        ("loose.png", 2),
        ("sound.png", 10),
    ]


def test_regularisation_images_are_marked(one, tmp_path_factory):
    reg = folder_of(tmp_path_factory.mktemp("reg"), {"1_cat": [(64, 64)] * 2})
    result = scan(str(one), str(reg))
    assert [image.is_reg for image in result.images] == [False, True, True]


# ------------------------------------------------------------------------ nothing to be found


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_folder_is_told(blank):
    assert refusal(blank).startswith("train_data_dir is blank.")


def test_a_missing_folder_is_told_with_the_nearest_that_is_there(tmp_path):
    text = refusal(tmp_path / "pictures" / "cats")
    assert f"train_data_dir = {tmp_path / 'pictures' / 'cats'} does not exist" in text
    assert f"The nearest folder that is there: {tmp_path}." in text


def test_a_file_is_no_folder(tmp_path):
    assert "is a file, not a folder" in refusal(draw(tmp_path / "a.png"))


def test_an_empty_folder_is_told(tmp_path):
    assert f"No images under train_data_dir = {tmp_path}." in refusal(tmp_path)


def test_images_one_level_too_high_are_told_with_both_ways_out(tmp_path):
    draw(tmp_path / "a.png")
    text = refusal(tmp_path)
    assert "1 images directly in it" in text
    assert f"Move them into a folder such as {tmp_path / '10_cat'}" in text
    assert "dataset_repeats = 10" in text


def test_the_folder_above_the_right_one_is_told_with_the_right_one(tmp_path):
    folder_of(tmp_path / "img", {"10_cat": [(8, 8)]})
    (tmp_path / "log").mkdir()
    assert f"Set train_data_dir to {tmp_path / 'img'}." in refusal(tmp_path)


def test_the_folder_below_the_right_one_is_told_with_the_right_one(tmp_path):
    folder_of(tmp_path, {"10_cat": [(8, 8)]})
    assert f"Set train_data_dir to {tmp_path}." in refusal(tmp_path / "10_cat")


def test_folders_without_repeats_only_are_told_with_a_name(tmp_path):
    folder_of(tmp_path, {"cats": [(8, 8)]})
    assert "such as 10_cats" in refusal(tmp_path)


def test_an_empty_regularisation_folder_is_told_by_its_own_name(one, tmp_path_factory):
    reg = tmp_path_factory.mktemp("reg")
    assert f"No images under reg_data_dir = {reg}" in refusal(one, reg)


# ------------------------------------------------------------------------------ broken files


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.png", b"", "empty file"),
        ("a.png", b"just text", "not a picture"),
        ("a.jpg", b"<!DOCTYPE html><html>", "not a picture"),
        ("a.png", noisy("PNG")[:-200], "cut off before its end"),
        ("a.jpg", noisy("JPEG")[:-200], "cut off before its end"),
        ("a.webp", noisy("WEBP")[:-200], "cut off before its end"),
    ],
)
def test_a_broken_file_is_skipped_and_told(one, name, content, told):
    (one / "10_cat" / name).write_bytes(content)
    result = scan(str(one))
    assert [image.path.name for image in result.images] == ["sound.png"]
    assert f"1 broken image skipped: {name} ({told})" in result.notices


def test_a_picture_under_another_ending_is_a_picture(one):
    (one / "10_cat" / "a.png").write_bytes(noisy("JPEG"))
    assert len(scan(str(one)).images) == 2


def test_only_broken_files_are_an_error(tmp_path):
    draw(tmp_path / "1_a" / "a.png").write_bytes(b"")
    assert "No usable image under" in refusal(tmp_path)
    assert "a.png (empty file)" in refusal(tmp_path)


def test_a_broken_file_that_was_mended_is_used(one):
    path = one / "10_cat" / "a.png"
    path.write_bytes(b"")
    assert len(scan(str(one)).images) == 1
    draw(path)
    assert len(scan(str(one)).images) == 2


def test_many_broken_files_are_counted_and_the_first_are_named(one):
    for number in range(8):
        (one / "10_cat" / f"{number}.png").write_bytes(b"")
    notice = scan(str(one)).notices[0]
    assert notice.startswith("8 broken images skipped: 0.png (empty file), 1.png")
    assert notice.endswith("and 3 more")


@pytest.mark.parametrize("tail", [b"\x00" * 300, b"\x12" * 200_000])
def test_data_behind_the_picture_does_not_break_it(one, tail):
    # Phones append whole videos to a JPEG.
    (one / "10_cat" / "a.jpg").write_bytes(noisy("JPEG") + tail)
    assert len(scan(str(one)).images) == 2


# --------------------------------------------------------------------------------- measuring


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_the_picture_as_seen(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "1_a" / "a.jpg"
    path.parent.mkdir()
    Image.new("RGB", (64, 48)).save(path, exif=exif)
    (image,) = scan(str(tmp_path)).images
    assert (image.width, image.height) == ((48, 64) if orientation >= 5 else (64, 48))


def test_damaged_exif_data_does_not_stop_the_scan(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture of a cat" * 5
    whole = noisy(exif=exif)
    rng = random.Random(1)
    (tmp_path / "1_a").mkdir()
    for number in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(30, 150)] = rng.randrange(256)
        (tmp_path / "1_a" / f"{number:02}.jpg").write_bytes(damaged)
    (tmp_path / "1_a" / "whole.jpg").write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about the damage
        assert scan(str(tmp_path)).images[-1].path.name == "whole.jpg"


def test_transparent_pictures_are_images(tmp_path):
    draw(tmp_path / "1_a" / "a.png", (20, 10), mode="RGBA", color=(1, 2, 3, 0))
    assert scan(str(tmp_path)).images[0].width == 20


# ---------------------------------------------------------------------------------- captions


def captioned(root, name, content):
    path = root / "10_cat" / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return {image.path.name: image.caption for image in scan(str(root)).images}["sound.png"]


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        ("a red ball", "a red ball"),
        ("  a red ball \r\n\nsecond line\r\n", "a red ball\nsecond line"),
        ("\ufeffa red ball\n", "a red ball"),
        ("ein Käse, 猫", "ein Käse, 猫"),
        ("", ""),
        (" \n", ""),
    ],
)
def test_every_line_of_its_file_is_kept(one, content, caption):
    assert captioned(one, "sound.txt", content) == caption


def test_an_empty_caption_is_told(one):
    captioned(one, "sound.txt", "")
    assert "1 image trained without any words: sound.png" in scan(str(one)).notices


@pytest.mark.parametrize("content", [b"a caf\xe9", "a cat".encode("utf-16")])
def test_a_caption_that_is_not_utf8_is_refused_by_name(one, content):
    (one / "10_cat" / "sound.txt").write_bytes(content)
    text = refusal(one)
    assert f"The caption file {one / '10_cat' / 'sound.txt'} is not UTF-8 text" in text
    assert "Save it as UTF-8" in text


def test_without_a_caption_file_the_folders_word_is_the_caption(one):
    draw(one / "10_cat" / "bare.png")
    result = scan(str(one))
    assert {i.path.name: i.caption for i in result.images}["bare.png"] == "cat"
    assert (
        "1 image without a caption file; the folder's word is the caption: bare.png"
        in result.notices
    )


def test_no_caption_file_at_all_is_told_as_such(tmp_path):
    folder_of(tmp_path, {"10_cat": [(8, 8)] * 2})
    assert scan(str(tmp_path)).notices[0].startswith("no image has a caption file")


def test_another_extension_is_read_and_told(one):
    (one / "10_cat" / "sound.txt").rename(one / "10_cat" / "sound.caption")
    result = scan(str(one))
    assert result.images[0].caption == "a cat"
    assert "1 captions are read from .caption files, as there are none with .txt" in result.notices


def test_the_asked_extension_comes_first(one):
    (one / "10_cat" / "sound.tags").write_text("tags", "utf-8")
    assert scan(str(one)).images[0].caption == "a cat"
    assert scan(str(one), caption_extension=".tags").images[0].caption == "tags"


def test_a_blank_extension_means_caption_as_in_the_reference(one):
    (one / "10_cat" / "sound.caption").write_text("from caption", "utf-8")
    assert scan(str(one), caption_extension="").images[0].caption == "from caption"


def test_only_the_last_ending_is_replaced(tmp_path):
    draw(tmp_path / "1_a" / "v1.2.png")
    (tmp_path / "1_a" / "v1.2.txt").write_text("right", "utf-8")
    (tmp_path / "1_a" / "v1.txt").write_text("wrong", "utf-8")
    assert scan(str(tmp_path)).images[0].caption == "right"
