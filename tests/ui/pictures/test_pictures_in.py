"""Every way by which pictures get in ends with a folder that can be trained."""

import base64
import json
import sys
import threading
import time
import types
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from kit.dataset.data_sets import Words
from kit.dataset.images import scan
from kit.hosts import Host
from kit.ui.pictures import staging
from kit.ui.pictures.box import drop_box, upload_script
from kit.ui.pictures.pictures_in import NEW, PicturesIn
from kit.ui.pictures.places import datasets_folder, given_folders, kept_folder

PLAIN = Host("plain", Path(), Path("output"), persistent=True)


def until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def picture(path, shade=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (96, 64), (shade, 90, 160)).save(path)
    return path


class Form:
    """What stands for the form: words, the folder it was given, and the places of a machine."""

    def __init__(self, tmp_path):
        self.words, self.folders, self.kept = Words("zxdog", "dog"), [], None
        self.data = tmp_path / "datasets"

    def pictures(self, here=PLAIN, **options):
        return PicturesIn(
            lambda: self.data,
            self.folders.append,
            lambda: self.words,
            kept=lambda: self.kept,
            here=here,
            **options,
        )


@pytest.fixture
def form(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "SECONDS", 0.01)
    monkeypatch.setattr("kit.ui.pictures.pictures_in.server_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    yield Form(tmp_path)
    if PicturesIn._at_work is not None:
        PicturesIn._at_work.close()
        PicturesIn._at_work = None


def send(pictures, batch, *paths):
    folder = pictures._work().folder
    listed = []
    for number, path in enumerate(paths):
        (folder / f"{batch}-{number}").write_bytes(path.read_bytes())
        listed.append({"name": path.name, "size": path.stat().st_size})
    (folder / f"{batch}.done").write_text(json.dumps(listed))


def test_an_upload_becomes_a_data_set_and_fills_the_field(form, tmp_path):
    pictures = form.pictures()
    send(pictures, "b1", picture(tmp_path / "a.png"), picture(tmp_path / "b.png"))
    until(lambda: form.folders)
    assert form.folders == [form.data / "zxdog dog"]
    (first, _) = scan(str(form.folders[0])).images
    assert (first.folder, first.caption, first.repeats) == ("10_zxdog dog", "zxdog dog", 10)
    assert "2 pictures, 0 captions in" in pictures.line.value
    assert "learn &quot;zxdog dog&quot;" in pictures.line.value
    assert pictures.data_set.value == str(form.data / "zxdog dog")
    assert pictures.data_set.label == "zxdog dog (2 pictures)"
    assert pictures.name.layout.display == "none"


def test_the_next_upload_goes_where_the_menu_says(form, tmp_path):
    pictures = form.pictures()
    pictures.name.value = "my <b>dog"
    send(pictures, "b1", picture(tmp_path / "a.png"))
    until(lambda: form.folders)
    assert form.folders[0].name == "my _b_dog"
    send(pictures, "b2", picture(tmp_path / "b.png"))
    until(lambda: len(form.folders) == 2)
    assert form.folders[1] == form.folders[0]
    assert len(scan(str(form.folders[0])).images) == 2
    pictures.data_set.value = ""
    pictures.name.value = ""
    send(pictures, "b3", picture(tmp_path / "c.png"))
    until(lambda: len(form.folders) == 3)
    assert form.folders[2].name == "zxdog dog"


def test_words_that_come_after_the_pictures_name_their_folder(form, tmp_path):
    form.words = Words()
    pictures = form.pictures()
    send(pictures, "b1", picture(tmp_path / "a.png"))
    until(lambda: form.folders)
    assert "learn the trigger word and the class word" in pictures.line.value
    pictures.use_words(Words("zxcat", "cat"))  # at once: who presses Train now trains these
    (image,) = scan(str(form.folders[0])).images
    assert image.caption == "zxcat cat"
    taken = picture(form.data / "pictures" / "10_taken" / "a.png").parent
    pictures.use_words(Words("taken"))
    until(lambda: "is there already" in pictures.line.value)
    assert image.path.is_file()
    assert taken.is_dir()


def test_words_that_change_while_pictures_are_put_in_place_name_the_folder_afterwards(
    form, tmp_path
):
    form.words = Words()
    pictures = form.pictures()
    send(pictures, "b1", picture(tmp_path / "a.png"))
    until(lambda: form.folders)
    with pictures._receiving:
        pictures.use_words(Words("zxcat", "cat"))
        time.sleep(0.05)
        assert (form.data / "pictures" / "10_" / "a.png").is_file()
    until(lambda: len(form.folders) == 2)
    (image,) = scan(str(form.folders[1])).images
    assert image.caption == "zxcat cat"


def test_a_data_set_of_another_day_keeps_its_name(form, tmp_path):
    picture(form.data / "dog/10_zxdog dog/a.png")
    pictures = form.pictures()
    pictures.data_set.value = str(form.data / "dog")
    until(lambda: form.folders)
    assert form.folders == [form.data / "dog"]
    pictures.use_words(Words("other"))
    time.sleep(0.1)
    assert (form.data / "dog/10_zxdog dog/a.png").is_file()
    assert len(form.folders) == 1


def test_a_refused_upload_is_told_at_the_place_and_changes_nothing(form, tmp_path):
    pictures = form.pictures()
    broken = tmp_path / "<i>.zip"
    broken.write_bytes(b"PK")
    send(pictures, "b1", broken)
    until(lambda: "is broken" in pictures.line.value)
    assert "&lt;i&gt;.zip is broken or no zip" in pictures.line.value
    assert "role='alert'" in pictures.line.value and "kit-problem" in pictures.line.value
    assert form.folders == [] and pictures.data_set.value == ""
    assert not form.data.exists() or list(form.data.iterdir()) == []


def test_a_path_in_quotes_is_used_as_it_is(form, tmp_path):
    picture(tmp_path / "my sets/img/10_dog/a.png")
    pictures = form.pictures()
    pictures.path.value = f' "{tmp_path}/my sets" '
    until(lambda: form.folders)
    assert form.folders == [tmp_path / "my sets/img"]
    assert "used as it is" in pictures.line.value
    assert not form.data.exists()


def test_a_folder_of_pictures_alone_is_copied_and_arranged(form, tmp_path):
    picture(tmp_path / "photos/a.png")
    pictures = form.pictures()
    pictures.path.value = str(tmp_path / "photos")
    until(lambda: form.folders)
    assert form.folders == [form.data / "photos"]
    assert (form.data / "photos/10_zxdog dog/a.png").is_file()
    assert (tmp_path / "photos/a.png").is_file()


def test_a_zip_of_this_machine(form, tmp_path):
    with zipfile.ZipFile(tmp_path / "cats.zip", "w") as archive:
        archive.write(picture(tmp_path / "a.png"), "5_cat/a.png")
    pictures = form.pictures()
    pictures.path.value = str(tmp_path / "cats.zip")
    until(lambda: form.folders)
    assert (form.data / "cats/5_cat/a.png").is_file()


@pytest.mark.parametrize("text", ["/nowhere/at/all", "no picture inside"])
def test_a_path_without_pictures_is_told(form, tmp_path, text):
    (tmp_path / "no picture inside").mkdir()
    pictures = form.pictures()
    pictures.path.value = text
    until(lambda: "kit-problem" in pictures.line.value)
    assert form.folders == []


def test_drive_keeps_a_copy_that_can_be_used_on_another_day(form, tmp_path):
    drive = tmp_path / "drive"
    here = Host("colab", tmp_path, drive / "loras", True, slow=drive, scratch=tmp_path / "w")
    form.kept = kept_folder(here)
    form.words = Words()
    pictures = form.pictures(here)
    picture(tmp_path / "photos/a.png")
    pictures.path.value = str(tmp_path / "photos")
    copy = drive / "loras/datasets/photos"
    until(lambda: "Copied to" in pictures.line.value)
    assert (copy / "10_/a.png").is_file()
    pictures.use_words(Words("zxcat", "cat"))
    until(lambda: (copy / "10_zxcat cat/a.png").is_file())
    # Another day: the fast disk is empty.
    form.data.rename(tmp_path / "gone")
    form.folders.clear()
    later = form.pictures(here)
    assert ("photos, on Drive (1 picture)", str(copy)) in later.data_set.options
    later.data_set.value = str(copy)
    until(lambda: form.folders)
    assert form.folders == [form.data / "photos"]
    assert (form.data / "photos/10_zxcat cat/a.png").is_file()


def test_a_copy_to_drive_that_fails_ends_nothing(form, tmp_path, monkeypatch):
    form.kept = tmp_path / "file"
    form.kept.write_text("no folder")
    pictures = form.pictures()
    send(pictures, "b1", picture(tmp_path / "a.png"))
    until(lambda: "could not be copied" in pictures.line.value)
    assert len(form.folders) == 1


def test_drive_is_asked_for_only_on_a_click(form, tmp_path, monkeypatch):
    here = Host("colab", tmp_path, tmp_path / "output", persistent=False)
    asked = []
    pictures = form.pictures(here, connect=lambda: asked.append(1) or "You said <no>.")
    assert pictures.drive_button.layout.display is None and not asked
    pictures.drive_button.click()
    assert asked == [1] and "You said &lt;no&gt;." in pictures.line.value
    assert form.pictures().drive_button.layout.display == "none"


def test_what_the_form_holds_is_shown_and_nobody_is_told(form, tmp_path):
    picture(form.data / "dog/10_x/a.png")
    pictures = form.pictures()
    pictures.offer(form.data / "dog")
    assert pictures.data_set.value == str(form.data / "dog") and pictures.path.value == ""
    pictures.offer("/some/where")
    assert pictures.data_set.value == "" and pictures.path.value == "/some/where"
    pictures.offer("")
    assert pictures.path.value == ""
    assert form.folders == [] and pictures.data_set.options[0] == (NEW, "")


def test_no_thread_before_it_is_shown_and_one_at_a_time(form):
    def threads():
        return [t for t in threading.enumerate() if t.name == "kit-uploads"]

    first, second = form.pictures(), form.pictures()
    assert threads() == []
    assert first.script is not None
    assert second.script is not None and len(threads()) == 1
    second.close()
    assert threads() == []


def html_of(script):
    return script._repr_mimebundle_()["text/html"]


def test_the_script_knows_its_box_and_its_folder(form, tmp_path):
    pictures = form.pictures()
    html, stage = html_of(pictures.script), pictures._work().folder
    assert json.dumps(stage.relative_to(tmp_path).as_posix()) in html
    assert f"data-kit-upload='{pictures._mark}'" in pictures.box.value
    assert json.dumps(pictures._mark) in html
    assert html.count("<script>") == 1


def test_a_folder_cannot_end_the_script():
    html = html_of(upload_script("u1", "a</script><b>", ""))
    assert html.count("</script>") == 1 and html.endswith("</script>")
    assert "<b>" not in drop_box("'><b>")


def test_colab_sends_pieces_to_a_function(form, tmp_path, monkeypatch):
    called = {}
    output = types.ModuleType("google.colab.output")
    output.register_callback = called.__setitem__
    colab = types.ModuleType("google.colab")
    colab.output = output
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    here = Host("colab", tmp_path, tmp_path / "output", persistent=False)
    pictures = form.pictures(here)
    html = html_of(pictures.script)
    ((name, take),) = called.items()
    assert json.dumps(name) in html
    content = picture(tmp_path / "a.png").read_bytes()
    pieces = (content[:50], content[50:])
    at = 0
    for piece in pieces:
        answer = take("b1-0", at, base64.b64encode(piece).decode())
        at = answer.data["size"]
    assert at == len(content)
    assert "missing" in take("b1-0", 10_000, "").data["error"]
    listed = json.dumps([{"name": "a.png", "size": len(content)}]).encode()
    take("b1.done", 0, base64.b64encode(listed).decode())
    until(lambda: form.folders)
    assert (form.folders[0] / "10_zxdog dog/a.png").read_bytes() == content


def test_without_a_server_a_folder_can_still_be_named(form, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.ui.pictures.pictures_in.server_root", lambda: None)
    pictures = form.pictures()
    assert '"folder": "", "callback": ""' in html_of(pictures.script)
    assert "put the pictures into a folder" in pictures.box.value
    picture(tmp_path / "photos/a.png")
    pictures.path.value = str(tmp_path / "photos")
    until(lambda: form.folders)


def test_places(tmp_path):
    assert datasets_folder(PLAIN) == Path.cwd() / "datasets"
    kaggle = Host("kaggle", Path("/kaggle/input"), Path("/kaggle/working"), persistent=False)
    assert datasets_folder(kaggle) == Path("/kaggle/working/datasets")
    (tmp_path / "set").mkdir()
    assert given_folders(kaggle, tmp_path) == [tmp_path / "set"]
    assert given_folders(PLAIN, tmp_path) == []
    assert kept_folder(PLAIN) is None
