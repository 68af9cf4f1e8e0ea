"""Which files are pictures, what is left out is named, and pictures may be large or turned."""

import contextlib
import importlib
import os
import random
import shutil
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from kit.dataset import files, images, pixels
from kit.dataset.buckets import BucketFit
from kit.dataset.files import image_files, measure, opened
from kit.dataset.images import scan
from kit.dataset.pixels import UPRIGHT, open_upright, prepared
from kit.errors import DatasetError
from kit.hosts import free_memory
from tests.support.pictures import draw

GB = 1024**3
RED = (200, 30, 40)


def captioned(path):
    path.with_suffix(".txt").write_text("a cat", "utf-8")
    return path


# ------------------------------------------------------------------------------------- kinds


@pytest.mark.parametrize("ending", ["jfif", "gif", "tif", "tiff", "avif", "heic", "heif", "GIF"])
def test_other_kinds_are_read(tmp_path, ending):
    pillow_heif.register_heif_opener()  # to write one
    kind = "JPEG" if ending == "jfif" else None
    path = tmp_path / "1_a" / f"x.{ending}"
    path.parent.mkdir()
    Image.new("RGB", (64, 48), RED).save(path, kind)
    (found,) = scan(str(tmp_path)).images
    assert (found.path, found.width, found.height) == (path, 64, 48)
    picture = np.asarray(open_upright(path)).astype(int)
    assert np.abs(picture - RED).max() <= 12  # these kinds lose a little, and a GIF has 256 colours


def test_of_a_gif_the_first_picture_counts(tmp_path):
    first, second = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert np.asarray(open_upright(tmp_path / "a.gif"))[0, 0].tolist() == [255, 0, 0]


def test_a_heic_file_under_the_name_of_a_jpeg_is_read(one):
    path = one / "10_cat" / "phone.jpg"
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), RED)).save(path, format="HEIF")
    assert [image.path.name for image in scan(str(one)).images] == ["phone.jpg", "sound.png"]


def test_a_plug_in_that_is_not_installed_is_named(one, monkeypatch):
    (one / "10_cat" / "a.heic").write_bytes(b"x")
    (one / "10_cat" / "b.jxl").write_bytes(b"x")
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    (notice,) = scan(str(one)).notices
    assert notice == (
        "not used: 1 .heic file (a.heic; `pip install pillow-heif` reads them), "
        "1 .jxl file (b.jxl; `pip install pillow-jxl-plugin` reads them)"
    )


def test_jpeg_xl_is_read_once_a_plug_in_is_there(one, tmp_path_factory, monkeypatch):
    package = tmp_path_factory.mktemp("packages")
    (package / "pillow_jxl.py").write_text(
        "from PIL import Image, PngImagePlugin\n"
        "class Stored(PngImagePlugin.PngImageFile):\n"
        "    format = 'JXL'\n"
        "Image.register_open('JXL', Stored, lambda head: head[:4] == b'\\x89PNG')\n"
    )
    draw(captioned(one / "10_cat" / "a.png"), (32, 16)).rename(one / "10_cat" / "a.jxl")
    assert len(scan(str(one)).images) == 1
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.syspath_prepend(package)
    importlib.invalidate_caches()
    try:
        found = scan(str(one)).images[0]
    finally:
        sys.modules.pop("pillow_jxl", None)
    assert (found.path.suffix, found.width) == (".jxl", 32)


@pytest.mark.parametrize("ending", ["gif", "tif", "bmp", "avif", "heic"])
def test_a_file_that_is_cut_off_is_told(one, ending):
    pillow_heif.register_heif_opener()
    path = one / "10_cat" / f"a.{ending}"
    Image.effect_noise((64, 64), 60).convert("RGB").save(path)
    assert measure(path) == (64, 64)
    path.write_bytes(path.read_bytes()[:-200])
    assert f"1 broken image skipped: a.{ending} (cut off" in scan(str(one)).notices[0]


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "gif", "tif", "avif", "heic"])
def test_a_damaged_file_is_read_or_named_and_nothing_else(tmp_path, ending):
    pillow_heif.register_heif_opener()
    path = tmp_path / f"a.{ending}"
    Image.effect_noise((48, 32), 60).convert("RGB").save(path)
    whole, rng = path.read_bytes(), random.Random(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about the damage
        for number in range(150):
            damaged = bytearray(whole)
            for _ in range(rng.choice([1, 3, 20])):
                damaged[rng.randrange(len(whole) if number % 2 else 200)] = rng.randrange(256)
            path.write_bytes(damaged)
            files._measured.cache_clear()
            size = measure(path)
            if isinstance(size, str):
                assert size
            elif size[0] * size[1] < 1_000_000:
                with contextlib.suppress(DatasetError):
                    open_upright(path)


def test_a_plug_in_that_is_broken_is_named(one, tmp_path_factory, monkeypatch):
    package = tmp_path_factory.mktemp("packages")
    (package / "pillow_jxl.py").write_text("raise ImportError('no libjxl')")
    monkeypatch.syspath_prepend(package)
    importlib.invalidate_caches()
    (one / "10_cat" / "a.jxl").write_bytes(b"x")
    assert scan(str(one)).notices == (
        "1 broken image skipped: a.jxl (pillow-jxl-plugin is installed, but cannot be loaded: no "
        "libjxl)",
    )


# --------------------------------------------------------------------------- what is not used


def test_everything_that_is_not_used_is_named_in_one_notice(one):
    folder = one / "10_cat"
    for name in ("a.psd", "b.PSD", "c.psd", "d.psd", "e.mp4", "LICENSE", "orphan.txt"):
        (folder / name).write_bytes(b"x")
    draw(folder / "raw" / "x.png")
    (folder / "folder.png").mkdir()
    (one / "README.md").write_text("hello", "utf-8")
    (one / "old").mkdir()
    assert scan(str(one)).notices == (
        "not used: 1 file without ending (LICENSE), 1 .md file (README.md), 1 .mp4 file (e.mp4), "
        "4 .psd files (a.psd, b.PSD, c.psd and 1 more), 1 caption file without an image "
        "(orphan.txt), 3 sub-folders (old, folder.png, raw with 1 image)",
    )


def test_a_folder_of_other_files_alone_says_what_lies_there(tmp_path):
    (tmp_path / "10_cat").mkdir()
    (tmp_path / "10_cat" / "a.psd").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"What lies there: 1 \.psd file \(a\.psd\)"):
        scan(str(tmp_path))


def test_images_that_sd_scripts_passes_over_are_told(one):
    for name in ("a.gif", "b.gif", "c.tif", "d.Png", "e.PNG", "f.jpeg"):
        draw(captioned(one / "10_cat" / name))
    assert scan(str(one)).notices == (
        "4 of 7 images are of kinds that sd-scripts passes over (1 .Png, 2 .gif, 1 .tif): with "
        "them an epoch has more steps than there",
    )


# ---------------------------------------------------------------------------------- turned

CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 0, 0]], [[9, 9, 9], [5, 6, 7]]])
CORNERS = CORNERS.astype(np.uint8).repeat(16, 0).repeat(16, 1)  # 32 wide, 48 high


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["tif", "avif", "heic"])
def test_pictures_are_turned_once(tmp_path, ending, orientation):
    pillow_heif.register_heif_opener()
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # which turn a camera's is taken back by
    stored = Image.fromarray(CORNERS)
    if orientation > 1:
        stored = stored.transpose(UPRIGHT[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    ways = {
        "tif": {},
        "avif": {"quality": 100, "subsampling": "4:4:4"},
        "heic": {"quality": -1, "chroma": 444},
    }
    stored.save(path, exif=exif.tobytes(), **ways[ending])  # bytes: pillow-heif writes `irot` then
    assert measure(path) == (32, 48)
    picture = np.asarray(open_upright(path)).astype(int)
    assert picture.shape == CORNERS.shape
    assert np.abs(picture - CORNERS)[8::16, 8::16].max() <= 12


# ----------------------------------------------------------------------------------- large


def large(path, megapixels):
    """One colour, so few bytes on disk."""
    side = round((megapixels * 1e6) ** 0.5) + 1
    path.parent.mkdir(exist_ok=True)
    Image.new("1", (side, side), 1).save(path, compress_level=1)
    return side


@pytest.mark.parametrize("megapixels", [108, 200])
def test_photographs_of_telephones_are_used(one, monkeypatch, megapixels):
    monkeypatch.setattr(images, "most_pixels", lambda: files.MOST_PIXELS)
    side = large(captioned(one / "10_cat" / "large.png"), megapixels)
    result = scan(str(one))
    assert result.notices == ()
    assert (result.images[0].width, result.images[0].height) == (side, side)


def test_the_pixels_of_a_large_photograph_can_be_prepared(tmp_path):
    side = large(tmp_path / "1_a" / "large.png", 108)
    place = BucketFit((64, 64), (64, 64))
    assert measure(tmp_path / "1_a" / "large.png") == (side, side)
    assert prepared(open_upright(tmp_path / "1_a" / "large.png"), place, (0, 0)).min() == 255


def test_large_pictures_wait_for_each_other(monkeypatch):
    monkeypatch.setattr(pixels, "LARGE", 100)
    at_once, most = [], []

    def hold(size):
        with pixels.alone_if_large(size):
            at_once.append(size)
            time.sleep(0.02)
            most.append(len(at_once))
            at_once.remove(size)

    for size, expected in ((101, 1), (100, 4)):
        threads = [threading.Thread(target=hold, args=(size,)) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert max(most) == expected


def test_larger_ones_are_left_out_and_named(one, monkeypatch):
    monkeypatch.setattr(files, "free_memory", lambda: 100 * GB)
    side = large(one / "10_cat" / "large.png", 400)
    result = scan(str(one))
    assert [image.path.name for image in result.images] == ["sound.png"]
    (notice,) = result.notices
    assert notice.startswith("1 image of more than 400 megapixels left out")
    assert notice.endswith(f"large.png ({side} x {side})")
    with pytest.raises(DatasetError, match=r"large\.png cannot be read: it has 400 megapixels"):
        open_upright(one / "10_cat" / "large.png")


@pytest.mark.parametrize(("free", "used"), [(40_000 * 16, 1), (40_000 * 16 - 1, 0)])
def test_the_limit_is_a_quarter_of_the_free_memory(one, monkeypatch, free, used):
    monkeypatch.setattr(files, "free_memory", lambda: free)
    draw(captioned(one / "10_cat" / "a.png"), (200, 200))
    result = scan(str(one))
    assert len(result.images) == 1 + used
    assert any("a.png (200 x 200)" in notice for notice in result.notices) is not bool(used)


def test_large_ones_alone_are_an_error_that_names_them(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "free_memory", lambda: 100)
    draw(tmp_path / "1_a" / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png \(64 x 64\) is too large"):
        scan(str(tmp_path))


def test_pillows_own_guard_is_as_it_was_afterwards(one):
    before = Image.MAX_IMAGE_PIXELS
    path = one / "10_cat" / "sound.png"

    def open_often():
        for _ in range(50):
            opened(path).close()

    threads = [threading.Thread(target=open_often) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    with pytest.raises(OSError, match="nowhere"):
        opened(Path("nowhere.png"))
    assert before == Image.MAX_IMAGE_PIXELS == 89_478_485


# ---------------------------------------------------------------------------------- memory


def test_a_containers_limit_counts(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   4096 kB\n")
    assert free_memory(tmp_path) == 4096 * 1024
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 300\n")
    assert free_memory(tmp_path) == 4096 * 1024
    (group / "memory.max").write_text("1500\n")
    assert free_memory(tmp_path) == 800


def test_this_machine_tells_its_memory():
    assert 16 * 1024**2 < free_memory() < 16 * 1024 * GB


def test_names_in_order_and_nothing_else(one):
    draw(one / "10_cat" / "a.gif")
    assert [path.name for path in image_files(one / "10_cat")] == ["a.gif", "sound.png"]


def test_a_cut_picture_that_claims_to_be_enormous_is_named_and_left_out(one):
    whole = draw(one / "10_cat" / "bomb.png").read_bytes()
    claims = (60_000).to_bytes(4, "big") * 2
    (one / "10_cat" / "bomb.png").write_bytes(whole[:16] + claims + whole[24:-12])
    notice = next(text for text in scan(str(one)).notices if "bomb.png" in text)
    assert "skipped" in notice or "left out" in notice
    with pytest.raises(DatasetError, match=r"bomb\.png cannot be read"):
        open_upright(one / "10_cat" / "bomb.png")


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_a_name_that_is_no_text_is_told_and_left_out(one):
    odd = os.fsencode(one / "10_cat") + b"/caf\xe9.png"
    shutil.copyfile(one / "10_cat" / "sound.png", odd)
    found = scan(str(one))
    assert [image.path.name for image in found.images] == ["sound.png"]
    (notice,) = found.notices
    assert "is no UTF-8 text; rename it" in notice
    notice.encode()


def test_a_folder_that_may_not_be_read_is_named(one, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DatasetError, match="cannot be read: Permission denied") as caught:
        scan(str(one))
    assert str(one) in str(caught.value)
