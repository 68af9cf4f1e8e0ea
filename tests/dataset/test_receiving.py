"""Uploads, zips and folders become a data set, or one message and no change."""

import errno
import os
import stat
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from kit.dataset import data_sets, receiving
from kit.dataset.data_sets import Words
from kit.dataset.images import scan
from kit.dataset.incoming import MOST_FILES, Source
from kit.dataset.receiving import receive
from kit.errors import DatasetError, KitError, OutputError

DOG = Words("zxdog", "dog")


def picture(path, shade=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (96, 64), (shade, 90, 160)).save(path)
    return path


@pytest.fixture
def picture_bytes(tmp_path):
    return picture(tmp_path / "one.png").read_bytes()


@pytest.fixture
def packed(tmp_path, picture_bytes):
    """Packs a zip of these names; a caption for .txt, else a picture."""

    def pack(*names, file="dog photos.zip"):
        path = tmp_path / file
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                text = f"text of {name}".encode() if name.endswith(".txt") else picture_bytes
                archive.writestr(name, text)
        return Source(path, file)

    return pack


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "datasets"


def inside(dataset):
    return sorted(
        p.relative_to(dataset).as_posix() for p in Path(dataset).rglob("*") if p.is_file()
    )


def nothing_is_there(folder):
    return not folder.is_dir() or list(folder.iterdir()) == []


def test_a_flat_zip_is_arranged_and_named_after_the_zip(packed, folder):
    got = receive([packed("1.png", "1.txt", "2.png")], folder, DOG)
    assert got.dataset == folder / "dog photos"
    assert inside(got.dataset) == [
        "10_zxdog dog/1.png",
        "10_zxdog dog/1.txt",
        "10_zxdog dog/2.png",
    ]
    assert (got.pictures, got.captions, got.notes) == (2, 1, ())
    assert got.arranged == got.dataset / "10_zxdog dog"


def test_pictures_without_captions_learn_trigger_and_class_word(packed, folder):
    got = receive([packed("1.png", "1.txt", "2.png")], folder, DOG)
    found = scan(str(got.dataset))
    assert [image.caption for image in found.images] == ["text of 1.txt", "zxdog dog"]
    assert [image.repeats for image in found.images] == [10, 10]
    assert any("the folder's word is the caption: 2.png" in text for text in found.notices)


@pytest.mark.parametrize("above", ["", "mine/", "mine/img/"])
def test_folders_with_repeats_stay_as_they_are(packed, folder, above):
    names = ["10_dog/a.png", "10_dog/a.txt", "3_big dog/b.png"]
    got = receive([packed(*(above + name for name in names))], folder, DOG)
    assert inside(got.dataset) == names
    assert got.arranged is None


def test_a_picture_beside_such_folders_is_not_lost(packed, folder):
    got = receive([packed("10_dog/a.png", "b.png", "b.txt")], folder, DOG)
    assert inside(got.dataset) == ["10_dog/a.png", "10_zxdog dog/b.png", "10_zxdog dog/b.txt"]


def test_folders_without_repeats_become_one_and_no_picture_replaces_another(packed, folder):
    got = receive([packed("x/1.png", "x/1.txt", "y/1.png", "y/1.txt")], folder, DOG)
    assert inside(got.dataset / "10_zxdog dog") == ["1.png", "1.txt", "y_1.png", "y_1.txt"]
    assert (got.dataset / "10_zxdog dog/y_1.txt").read_text("utf-8") == "text of y/1.txt"


def test_several_files_of_one_name_are_several_pictures(tmp_path, folder):
    """iPhones call every picture image.jpg."""
    files = [
        Source(picture(tmp_path / f"{n}.png", 60 * n), "image.png", is_ours=True) for n in range(3)
    ]
    got = receive(files, folder, DOG)
    names = ["image (2).png", "image (3).png", "image.png"]
    assert inside(got.dataset / "10_zxdog dog") == names
    shades = {Image.open(got.dataset / "10_zxdog dog" / name).getpixel((0, 0))[0] for name in names}
    assert shades == {0, 60, 120}


def test_names_that_differ_in_case_stay_apart(packed, folder):
    got = receive([packed("A.png", "a.PNG", "A.txt")], folder, DOG)
    assert inside(got.dataset / "10_zxdog dog") == ["A.png", "A.txt", "a (2).png"]


def test_what_systems_leave_behind_does_not_come_along(packed, folder):
    names = ["1.png", "__MACOSX/._1.png", ".DS_Store", "Thumbs.db", "notes.pdf", "lonely.txt"]
    got = receive([packed(*names)], folder, DOG)
    assert inside(got.dataset) == ["10_zxdog dog/1.png"]
    assert got.notes == ("2 files left out, no picture or caption: notes.pdf, lonely.txt",)


def test_names_of_windows_zips_and_bad_characters(packed, folder):
    got = receive([packed("10_dog\\a?.png", "10_dog\\a?.TXT")], folder, DOG)
    assert inside(got.dataset) == ["10_dog/a_.png", "10_dog/a_.txt"]
    long = receive([packed("ä" * 120 + ".png", file="z.zip")], folder, DOG)
    (name,) = inside(long.dataset)
    assert len(Path(name).name.encode()) < 200 and name.endswith(".png")


def test_a_second_upload_of_the_same_name_gets_a_number(packed, folder):
    first = receive([packed("1.png")], folder, DOG)
    second = receive([packed("2.png")], folder, DOG)
    assert second.dataset.name == "dog photos 2"
    assert inside(first.dataset) == ["10_zxdog dog/1.png"]


def test_a_name_that_is_taken_on_drive_gets_a_number_too(packed, folder, tmp_path):
    (tmp_path / "drive" / "Dog Photos").mkdir(parents=True)
    got = receive([packed("1.png")], folder, DOG, kept=tmp_path / "drive")
    assert got.dataset.name == "dog photos 2"


def test_more_pictures_for_a_data_set_replace_none(tmp_path, folder):
    def came(*named):
        return [Source(path, path.name, is_ours=True) for path in named]

    a, b = picture(tmp_path / "in/a.png", 10), picture(tmp_path / "in/b.png", 20)
    text = tmp_path / "in/a.txt"
    text.write_text("first", "utf-8")
    got = receive(came(a, text), folder, DOG, name="dog")
    home = got.dataset / "10_zxdog dog"
    other = picture(tmp_path / "other/a.png", 200)
    new_text = tmp_path / "other/a.txt"
    new_text.write_text("second", "utf-8")
    more = receive(came(other, new_text, b), folder, Words("else", "cat"), into=got.dataset)
    assert more.dataset == got.dataset
    assert inside(home) == ["a (2).png", "a (2).txt", "a.png", "a.txt", "b.png"]
    assert (home / "a.txt").read_text("utf-8") == "first"
    assert (home / "a (2).txt").read_text("utf-8") == "second"
    assert any("got a number" in note for note in more.notes)
    again = receive(came(a, new_text), folder, DOG, into=got.dataset)
    assert inside(home) == ["a (2).png", "a (2).txt", "a.png", "a.txt", "b.png"]
    assert again.notes == (
        "1 file was there already",
        "1 caption differs from the one that is there, which stays",
    )
    assert (home / "a.txt").read_text("utf-8") == "first"


def test_a_caption_may_come_after_its_picture(tmp_path, folder):
    a = picture(tmp_path / "a.png")
    got = receive([Source(a, "a.png")], folder, DOG)
    (tmp_path / "a.txt").write_text("late", "utf-8")
    receive([Source(tmp_path / "a.txt", "a.txt")], folder, DOG, into=got.dataset)
    assert [image.caption for image in scan(str(got.dataset)).images] == ["late"]


def test_a_source_that_is_not_ours_is_copied_and_not_linked(tmp_path, folder):
    path = picture(tmp_path / "photos/1.png")
    got = receive(data_sets.sources_in(tmp_path / "photos"), folder, DOG)
    copy = got.dataset / "10_zxdog dog/1.png"
    assert copy.stat().st_ino != path.stat().st_ino
    assert path.is_file()


# ------------------------------------------------------------------------------ bad input


def refused(source, folder, kind=DatasetError):
    with pytest.raises(kind) as caught:
        receive([source], folder, DOG)
    assert nothing_is_there(folder)
    return str(caught.value)


def test_a_broken_zip(tmp_path, folder, packed):
    path = tmp_path / "x.zip"
    path.write_bytes(b"PK\3\4 and no more")
    assert "x.zip is broken or no zip" in refused(Source(path, "x.zip"), folder)
    whole = packed("1.png", "2.png").path
    damaged = bytearray(whole.read_bytes())
    damaged[60:70] = b"0123456789"  # inside the first picture: its checksum tells
    whole.write_bytes(damaged)
    told = refused(Source(whole, "d.zip"), folder)
    assert "d.zip is broken" in told and "Nothing was taken over" in told
    whole.write_bytes(whole.read_bytes()[:-40])
    assert "is broken" in refused(Source(whole, "d.zip"), folder)


@pytest.mark.parametrize("name", ["../1.png", "/etc/1.png", "10_dog/../../1.png", "C:\\x\\1.png"])
def test_paths_that_lead_outside(packed, folder, tmp_path, name):
    assert "leads outside" in refused(packed("2.png", name), folder)
    assert not (tmp_path / "1.png").exists()


def test_ten_thousand_entries(tmp_path, folder):
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(MOST_FILES + 1):
            archive.writestr(f"{number}.png", b"")
    told = refused(Source(path, "many.zip"), folder)
    assert "10,000 files" in told and "At most 9,999" in told
    loose = Source(picture(tmp_path / "a.png"), "a.png")
    with pytest.raises(DatasetError, match="10,000 files"):
        receive([loose] * 10_000, folder, DOG)


def test_a_zip_that_swells(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("kit.dataset.incoming.BELIEVED", 1_000_000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", bytes(3_000_000))
    assert "would unpack to" in refused(Source(path, "bomb.zip"), folder)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO])
def test_links_and_other_things_in_a_zip(tmp_path, folder, kind):
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("1.png")
        entry.external_attr = (kind | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    assert "1.png in link.zip is" in refused(Source(path, "link.zip"), folder)


def test_a_locked_zip(packed, folder):
    source = packed("1.png")
    data = bytearray(source.path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    source.path.write_bytes(data)
    assert "password" in refused(source, folder)


def test_a_zip_packed_in_an_unknown_way(packed, folder):
    source = packed("1.png")
    data = bytearray(source.path.read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = 9  # Deflate64, as Windows packs large files
    data[8] = 9
    source.path.write_bytes(data)
    assert "ordinary zip" in refused(source, folder)


def test_no_picture_at_all(packed, folder):
    told = refused(packed("a.pdf", "b.txt"), folder)
    assert "There is no picture among a.pdf, b.txt" in told


def test_repeats_in_several_places(packed, folder):
    told = refused(packed("img/10_dog/a.png", "reg/1_dog/b.png"), folder)
    assert "several places: img, reg" in told


def test_a_full_disk_before(packed, folder, monkeypatch):
    usage = type("usage", (), {"free": receiving.SPARE + 100})
    monkeypatch.setattr(receiving.shutil, "disk_usage", lambda _: usage)
    assert "The disk is too full" in refused(packed("1.png"), folder, OutputError)


def test_a_full_disk_while_unpacking(packed, folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("kit.dataset.incoming.shutil.copyfile", full)
    source = Source(picture(folder.parent / "1.png"), "1.png")
    told = refused(source, folder, OutputError)
    assert "No space left" in told and "Nothing was taken over" in told


def test_a_move_that_fails_in_between_is_undone(tmp_path, folder, monkeypatch):
    got = receive([Source(picture(tmp_path / "z.png"), "z.png")], folder, DOG)
    home, rename = got.dataset / "10_zxdog dog", Path.rename

    def breaks(self, target):
        if self.name == "b.png" and target.parent == home:
            raise OSError(errno.EIO, "broken")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", breaks)
    files = [Source(picture(tmp_path / f"{n}.png", 7), f"{n}.png") for n in "ab"]
    with pytest.raises(OutputError, match="Nothing was taken over"):
        receive(files, folder, DOG, into=got.dataset)
    assert inside(got.dataset) == ["10_zxdog dog/z.png"]
    assert [path.name for path in folder.iterdir()] == [got.dataset.name]


def test_pictures_that_need_a_package_say_which(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("kit.dataset.files.find_spec", lambda _: None)
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic")
    got = receive([Source(path, "a.heic")], folder, DOG)
    (note,) = got.notes
    assert "`pip install pillow-heif` reads them" in note


def test_heic_of_telephones_is_read(tmp_path, folder):
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "IMG_1.HEIC"
    heif.from_pillow(Image.new("RGB", (128, 96), "red")).save(path)
    got = receive([Source(path, "IMG_1.HEIC")], folder, DOG)
    (image,) = scan(str(got.dataset)).images
    assert (image.width, image.height, image.caption) == (128, 96, "zxdog dog")
    assert got.notes == ()


def test_a_folder_named_by_a_date_is_told(packed, folder):
    got = receive([packed("2024_summer/1.png")], folder, DOG)
    assert got.notes == ("2024_summer is read as 2024 repeats of each picture",)


# ------------------------------------------------------------------------------ data sets


def test_the_folder_follows_words_that_come_later(packed, folder):
    got = receive([packed("1.png")], folder, Words())
    assert got.arranged.name == "10_"
    new = data_sets.renamed(got.arranged, DOG)
    assert new.name == "10_zxdog dog" and new.is_dir()
    assert data_sets.renamed(new, DOG) == new
    (new.parent / "10_cat").mkdir()
    with pytest.raises(OutputError, match="is there already"):
        data_sets.renamed(new, Words("cat"))
    assert data_sets.words_of(got.dataset) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("10_zxdog dog", DOG),
        ("3_zxdog", Words("zxdog", "", 3)),
        ("5_a big dog", Words("a", "big dog", 5)),
    ],
)
def test_words_of_a_data_set(tmp_path, name, words):
    (tmp_path / name).mkdir()
    assert data_sets.words_of(tmp_path) == words


def test_words_make_no_path():
    assert Words("../a/b", " dog  ").folder == "10_.._a_b dog"
    assert Words().folder == "10_"


def test_known_sets(tmp_path):
    picture(tmp_path / "dog/10_zxdog/1.png")
    picture(tmp_path / "flat/1.png")
    picture(tmp_path / ".half.part/10_x/1.png")
    assert data_sets.known_sets(tmp_path) == {"dog": 1}
    assert data_sets.known_sets(tmp_path / "none") == {}


def test_which_folder_is_used_as_it_is(tmp_path):
    picture(tmp_path / "a/img/10_dog/1.png")
    picture(tmp_path / "flat/1.png")
    assert data_sets.usable_as_it_is(tmp_path / "a") == tmp_path / "a/img"
    assert data_sets.usable_as_it_is(tmp_path / "a/img") == tmp_path / "a/img"
    assert data_sets.usable_as_it_is(tmp_path / "flat") is None
    assert data_sets.usable_as_it_is(tmp_path / "none") is None
    picture(tmp_path / "a/reg/1_dog/1.png")
    assert data_sets.usable_as_it_is(tmp_path / "a") is None


def test_a_folder_of_repeats_itself_may_be_named(tmp_path, folder):
    picture(tmp_path / "x/7_dog/1.png")
    got = receive(data_sets.sources_in(tmp_path / "x/7_dog"), folder, DOG)
    assert inside(got.dataset) == ["7_dog/1.png"]


def test_a_path_that_is_nothing(tmp_path):
    with pytest.raises(KitError, match=r"none does not exist"):
        data_sets.sources_in(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(KitError, match=r"notes\.txt is neither a folder nor a zip"):
        data_sets.sources_in(tmp_path / "notes.txt")


def test_a_folder_without_a_picture_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(KitError, match=r"There is no picture in .*empty"):
        data_sets.sources_in(tmp_path / "empty")


def test_copies_bring_only_what_is_new(packed, folder, tmp_path):
    got = receive([packed("1.png", "2.png")], folder, DOG)
    copy = tmp_path / "drive/dog"
    assert data_sets.copy_new(got.dataset, copy) == 2
    assert data_sets.copy_new(got.dataset, copy) == 0
    assert data_sets.is_same(got.dataset, copy)
    picture(got.dataset / "10_zxdog dog/3.png")
    assert not data_sets.is_same(got.dataset, copy)
    assert data_sets.copy_new(got.dataset, copy) == 1


def test_damaged_pictures_are_named_and_left_out(folder, tmp_path):
    """They used to be counted as pictures, and were missed by the plan alone."""
    good = picture(tmp_path / "a.jpg")
    whole = Image.effect_noise((200, 200), 90)
    whole.save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "none.webp").write_bytes(b"")
    names = ("cut.jpg", "none.webp", "text.png")
    bad = [Source(tmp_path / name, name) for name in names]
    received = receive([Source(good, "a.jpg"), *bad], folder, DOG)
    assert inside(received.dataset) == ["10_zxdog dog/a.jpg"]
    assert (received.pictures, received.captions) == (1, 0)
    assert received.notes == (
        "3 pictures are damaged and left out: cut.jpg (cut off before its end), none.webp (empty "
        "file), text.png (not a picture)",
    )
    with pytest.raises(DatasetError, match=r"No picture that came can be used: cut\.jpg \(cut"):
        receive(bad, folder, DOG, name="again")
    with pytest.raises(DatasetError, match="Nothing was taken over"):
        receive(bad, folder, DOG, into=received.dataset)
    assert [path.name for path in folder.iterdir()] == [received.dataset.name]
    assert inside(received.dataset) == ["10_zxdog dog/a.jpg"]
