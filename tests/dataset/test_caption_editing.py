import json
from functools import partial

import pytest
from PIL import Image

from kit.dataset.caption_editing import (
    JOURNAL,
    Change,
    caption_change,
    captions_of,
    newest_edit,
    proposal,
    save,
    undo,
)
from kit.dataset.caption_tags import with_trigger
from kit.dataset.images import TrainImage, scan
from kit.errors import DatasetError, OutputError
from kit.settings import Settings


@pytest.fixture
def folder(tmp_path):
    """Three pictures: one with .txt, one with .caption, one without."""
    folder = tmp_path / "10_zib ball"
    folder.mkdir()
    for name in "abc":
        Image.new("RGB", (64, 64)).save(folder / f"{name}.png")
    (folder / "a.txt").write_text("red, round\n", "utf-8")
    (folder / "b.caption").write_text("blue", "utf-8")
    return folder


def captions(folder, **settings):
    images = scan(str(folder.parent)).images
    return captions_of(images, [Settings().replace(**settings)])


def edited(file, text, what="an edit"):
    return save([caption_change(file, text)], what)


def test_a_caption_is_written_where_it_is_read_from(folder):
    a, b, c = captions(folder)
    assert (a.file.name, b.file.name, c.file.name) == ("a.txt", "b.caption", "c.txt")
    assert [each.is_written for each in (a, b, c)] == [True, True, False]
    assert c.text == "zib ball"
    assert captions(folder, caption_extension="")[2].file.name == "c.caption"


def test_what_is_saved_is_what_the_next_scan_reads(folder):
    for caption in captions(folder):
        edited(caption.file, f"new {caption.image.stem}\n second ")
    texts = [image.caption for image in scan(str(folder.parent)).images]
    assert texts == ["new a\nsecond", "new b\nsecond", "new c\nsecond"]
    assert (folder / "a.txt").read_text("utf-8") == "new a\nsecond\n"
    assert scan(str(folder.parent)).notices == (
        "1 captions are read from .caption files, as there are none with .txt",
    )  # neither the journal nor a part is in anybody's way


def test_undo_gives_every_byte_back_and_takes_a_new_file_away(folder):
    (folder / "a.txt").write_bytes("\ufeffone\r\ntwo\r\n".encode())
    edited(folder / "a.txt", "three\nfour")
    assert (folder / "a.txt").read_bytes() == "\ufeffthree\r\nfour\r\n".encode()
    edited(folder / "c.txt", "new")
    assert undo(newest_edit([folder])) == ([folder / "c.txt"], [])
    assert not (folder / "c.txt").exists()
    assert undo(newest_edit([folder])) == ([folder / "a.txt"], [])
    assert (folder / "a.txt").read_bytes() == "\ufeffone\r\ntwo\r\n".encode()
    assert newest_edit([folder]) is None


def test_edits_are_undone_from_the_newest_to_the_first(folder):
    for text in ("one", "two", "three"):
        edited(folder / "a.txt", text, what=text)
    seen = []
    while edit := newest_edit([folder]):
        undo(edit)
        seen.append((edit.what, (folder / "a.txt").read_text("utf-8")))
    assert seen == [("three", "two\n"), ("two", "one\n"), ("one", "red, round\n")]


def test_an_undone_edit_stays_undone_when_its_text_is_written_again(folder):
    edited(folder / "a.txt", "one", what="first")
    undo(newest_edit([folder]))
    edited(folder / "a.txt", "one", what="second")
    undo(newest_edit([folder]))
    assert newest_edit([folder]) is None


def test_the_old_text_stays_in_the_journal(folder):
    edited(folder / "a.txt", "new", what="caption of a.png")
    undo(newest_edit([folder]))
    edit, undone = map(json.loads, (folder / JOURNAL).read_text("utf-8").splitlines())
    number = edit.pop("edit")
    assert edit == {
        "what": "caption of a.png", "file": "a.txt", "before": "red, round\n", "after": "new\n",
    }  # fmt: skip
    assert undone == {"undone": number}


def test_what_was_changed_elsewhere_since_is_left_by_undo(folder):
    save([caption_change(folder / name, "new") for name in ("a.txt", "b.caption")], "both")
    (folder / "b.caption").write_text("mine", "utf-8")
    assert undo(newest_edit([folder])) == ([folder / "a.txt"], [folder / "b.caption"])
    assert (folder / "b.caption").read_text("utf-8") == "mine"
    assert newest_edit([folder]) is None


def test_a_file_that_changed_since_it_was_looked_at_is_not_overwritten(folder):
    changes = [caption_change(folder / name, "new") for name in ("a.txt", "b.caption")]
    (folder / "b.caption").write_text("mine", "utf-8")
    with pytest.raises(DatasetError, match=r"b\.caption has been changed"):
        save(changes, "both")
    assert (folder / "a.txt").read_text("utf-8") == "red, round\n"
    assert not (folder / JOURNAL).exists()


def test_a_folder_that_cannot_be_written_keeps_every_caption(folder):
    (folder / JOURNAL).mkdir()  # root may write everywhere, but not into a folder as a file
    with pytest.raises(OutputError, match=r"captions of .*10_zib ball cannot be written") as error:
        edited(folder / "a.txt", "new")
    assert "Prepare folders" in error.value.do
    assert (folder / "a.txt").read_text("utf-8") == "red, round\n"


def test_all_captions_of_an_edit_are_written_or_none(folder):
    (folder / ".b.caption.part").mkdir()
    changes = [caption_change(folder / name, "new") for name in ("a.txt", "b.caption")]
    with pytest.raises(OutputError, match="They are as they were"):
        save(changes, "both")
    assert (folder / "a.txt").read_text("utf-8") == "red, round\n"
    assert newest_edit([folder]) is None


def test_a_journal_that_broke_off_keeps_its_whole_lines(folder):
    edited(folder / "a.txt", "one", what="first")
    with (folder / JOURNAL).open("a", encoding="utf-8") as file:
        file.write('{"edit": 12, "what": "bro')
    edited(folder / "a.txt", "two", what="second")
    assert undo(newest_edit([folder])) and newest_edit([folder]).what == "first"


def test_a_link_goes_on_pointing_to_its_file(folder, tmp_path):
    real = tmp_path / "elsewhere.txt"
    real.write_text("old", "utf-8")
    (folder / "c.txt").symlink_to(real)
    edited(folder / "c.txt", "new")
    assert (folder / "c.txt").is_symlink()
    assert real.read_text("utf-8") == "new"


def test_the_same_text_is_no_change(folder):
    assert caption_change(folder / "a.txt", " red, round ") is None
    assert caption_change(folder / "c.txt", "  ") is None
    assert caption_change(folder / "a.txt", "") == Change(folder / "a.txt", "red, round\n", "")


def test_a_caption_that_is_no_text_is_named(folder):
    (folder / "a.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DatasetError, match=r"a\.txt cannot be read as UTF-8"):
        caption_change(folder / "a.txt", "new")


def test_an_edit_of_all_says_what_it_would_do(folder):
    (folder / "b.caption").write_text("a zib, blue", "utf-8")
    found = proposal(captions(folder), lambda text, style: with_trigger(text, "zib", style))
    assert [(caption.image.name, text) for caption, text in found.changes] == [
        ("a.png", "zib, red, round")
    ]
    assert (found.same, found.new_files, found.locked) == (2, 0, 0)
    found = proposal(captions(folder), lambda text, style: with_trigger(text, "toy", style))
    assert [text for _, text in found.changes] == ["toy, red, round", "toy, a zib, blue",
                                                   "toy, zib ball"]  # fmt: skip
    assert found.new_files == 1


def test_pictures_that_share_a_file_change_it_once(folder):
    Image.new("RGB", (64, 64)).save(folder / "a.jpg")
    found = proposal(captions(folder), lambda text, style: with_trigger(text, "toy", style))
    assert len(found.changes) == 3


def test_captions_of_a_metadata_file_are_told_to_be_elsewhere(folder):
    make = partial(TrainImage, width=64, height=64, caption="x", folder="m", repeats=1)
    images = [make(folder / "a.png"), make(folder / "b.png", subset=1)]
    named, own = captions_of(images, [Settings(), Settings()], ["/x/meta.json", ""])
    assert "meta.json" in named.locked and not own.locked
    assert proposal([named], lambda text, style: "new").locked == 1
