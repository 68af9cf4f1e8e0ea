"""Files to pixels: as seen, on white, scaled and cut as the reference trainer does it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit.dataset.buckets import BucketFit, BucketRule, fit
from kit.dataset.pixels import (
    area_scaled,
    cut_offset,
    is_flipped,
    open_upright,
    prepared,
    scaled,
)
from kit.errors import DatasetError

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "image_pipeline.json").read_text())["cases"]
ARRAYS = np.load(GOLDEN / "image_pipeline.npz")
PLAIN = [case for case in CASES if case["interpolation"] is None]


def place_of(case):
    side = case["resolution"]
    rule = BucketRule(
        (side, side), case["min"], case["max"], case["step"], no_upscale=case["no_upscale"]
    )
    return fit(tuple(case["image"]), rule)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case {case['i']}")
def test_sizes_are_the_references(case):
    assert place_of(case) == BucketFit(tuple(case["bucket"]), tuple(case["resized"]))


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: f"case {case['i']}")
def test_pixels_are_the_references(case):
    before, after = ARRAYS[f"in{case['i']}"], ARRAYS[f"out{case['i']}"]
    place = place_of(case)
    across, down = place.overhang
    found = prepared(Image.fromarray(before), place, (across // 2, down // 2))
    assert found.shape == after.shape
    shrinks = before.shape[1] >= place.resized[0] and before.shape[0] >= place.resized[1]
    # Lanczos is Pillow's in both; the area mean is OpenCV's there and ours here.
    apart = np.abs(found.astype(int) - after.astype(int)).max()
    assert apart <= (1 if shrinks else 0)


def test_the_recorded_pictures_are_shrunk_and_enlarged():
    shrinks = [case["image"][0] >= case["resized"][0] for case in PLAIN]
    assert any(shrinks) and not all(shrinks)


def test_shrinking_to_half_is_the_mean_of_four():
    pixels = np.random.default_rng(1).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    means = pixels.reshape(4, 2, 3, 2, 3).mean(axis=(1, 3))
    assert np.abs(area_scaled(pixels, (3, 4)) - means).max() <= 0.5


def test_shrinking_keeps_a_plain_colour_at_any_size():
    for value in (0, 1, 127, 254, 255):
        pixels = np.full((97, 101, 3), value, np.uint8)
        for size in ((1, 1), (7, 96), (100, 13), (101, 97), (33, 64)):
            assert (scaled(pixels, size) == value).all()


def test_a_picture_of_the_right_size_is_left_as_it_is():
    pixels = np.random.default_rng(2).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    place = BucketFit((24, 16), (24, 16))
    assert np.array_equal(prepared(Image.fromarray(pixels), place, (0, 0)), pixels)


def test_the_cut_begins_at_its_offset_and_mirroring_comes_last():
    pixels = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    place = BucketFit((16, 16), (30, 20))
    plain = prepared(Image.fromarray(pixels), place, (5, 3))
    mirrored = prepared(Image.fromarray(pixels), place, (5, 3), flipped=True)
    assert np.array_equal(plain, pixels[3:19, 5:21])
    assert np.array_equal(mirrored, plain[:, ::-1])
    assert mirrored.flags.c_contiguous


def test_the_offset_is_the_middle_unless_drawn():
    place = BucketFit((64, 64), (75, 64))
    where = dict(seed=1, epoch=0, image=0, turn=0)
    assert cut_offset(place, **where, random=False) == (5, 0)
    drawn = {
        cut_offset(place, **{**where, "turn": turn}, random=True) for turn in range(200)
    }  # fmt: skip
    assert {left for left, _ in drawn} == set(range(12))
    assert {top for _, top in drawn} == {0}


@pytest.mark.parametrize("part", ["seed", "epoch", "image", "turn"])
def test_each_use_of_an_image_draws_for_itself(part):
    place = BucketFit((64, 64), (1064, 1064))
    where = dict(seed=1, epoch=0, image=0, turn=0)
    first = cut_offset(place, **where, random=True)
    assert cut_offset(place, **where, random=True) == first
    assert cut_offset(place, **{**where, part: 5}, random=True) != first


def test_about_half_of_the_uses_are_mirrored():
    flips = [is_flipped(seed=1, epoch=0, image=0, turn=turn) for turn in range(1000)]
    assert 430 < sum(flips) < 570
    assert flips == [is_flipped(seed=1, epoch=0, image=0, turn=turn) for turn in range(1000)]


# ---------------------------------------------------------------------------------- opening

CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 0, 0]], [[9, 9, 9], [5, 6, 7]]])


def stored(upright, orientation):
    """How a camera stores an upright picture and says to turn it back."""
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(turned[orientation]).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_camera_says(tmp_path, orientation):
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored(CORNERS, orientation)).save(path, exif=exif)
    assert np.array_equal(np.asarray(open_upright(path)), CORNERS)


def test_transparency_becomes_white(tmp_path):
    path = tmp_path / "a.png"
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = 0, 128, 255  # black below, as many programs leave it
    Image.fromarray(pixels).save(path)
    assert np.asarray(open_upright(path))[0, :, 0].tolist() == [255, 127, 0]


def test_a_transparent_palette_colour_becomes_white(tmp_path):
    path = tmp_path / "a.png"
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(path, transparency=0)
    assert np.asarray(open_upright(path)).tolist() == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.parametrize(("mode", "color"), [("L", 77), ("1", 1), ("CMYK", (0, 0, 0, 99))])
def test_other_kinds_of_pixels_become_colours(tmp_path, mode, color):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (4, 4), color).save(path)
    image = open_upright(path)
    assert (image.mode, image.size) == ("RGB", (4, 4))


def test_16_bit_grey_keeps_its_shades(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 257, 128 * 257, 65535]], np.uint16)).save(path)
    assert np.asarray(open_upright(path))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floating_point_grey_keeps_its_shades(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[0, 0.25, 0.5, 1]], np.float32)).save(path)
    assert np.asarray(open_upright(path))[0, :, 0].tolist() == [0, 64, 128, 255]
    Image.fromarray(np.array([[0, 1, 128, 255]], np.float32)).save(path)
    assert np.asarray(open_upright(path))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", None])
def test_a_file_that_cannot_be_decoded_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    if content is None:
        Image.effect_noise((64, 64), 50).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"broken\.png cannot be read"):
        open_upright(path)


def test_a_missing_file_is_not_to_be_saved_again_with_a_picture_editor(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.png is not there any more") as told:
        open_upright(tmp_path / "gone.png")
    assert "editor" not in str(told.value)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "I/O")])
def test_a_storage_that_refuses_is_not_the_pictures_fault(tmp_path, monkeypatch, error):
    def refuse(path):
        raise error

    monkeypatch.setattr("kit.dataset.pixels.opened", refuse)
    with pytest.raises(DatasetError, match=error.strerror) as told:
        open_upright(tmp_path / "a.png")
    assert "editor" not in str(told.value)


def test_a_thumbnail_needs_not_all_of_a_jpeg_and_is_upright(tmp_path):
    path, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (1600, 800), (200, 10, 10)).save(path, exif=exif)
    assert open_upright(path).size == (800, 1600)
    small = open_upright(path, about=200)
    assert small.size == (200, 400)
    assert abs(small.getpixel((50, 50))[0] - 200) < 4
    Image.new("RGB", (1600, 800)).save(tmp_path / "b.png")
    assert open_upright(tmp_path / "b.png", about=200).size == (1600, 800)
