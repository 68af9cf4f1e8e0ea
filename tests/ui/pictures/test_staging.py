"""The thread hands on whole batches alone, and leaves nothing behind."""

import base64
import json
import os
import time

import pytest

from kit.ui.pictures import staging
from kit.ui.pictures.staging import ALIVE, Staging, new_mark, shelf_below


def until(true, seconds=5.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


class Heard:
    def __init__(self):
        self.batches, self.errors = [], []

    def take(self, sources):
        self.batches.append([(source.name, source.path.read_bytes()) for source in sources])

    def fail(self, error):
        self.errors.append(str(error))


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def stage(tmp_path, heard, monkeypatch):
    monkeypatch.setattr(staging, "SECONDS", 0.01)
    monkeypatch.setattr(staging, "LINGER", 0.1)
    stage = Staging(tmp_path / "shelf" / new_mark(), heard.take, heard.fail)
    yield stage
    stage.close()


def send(stage, batch, **files):
    for number, content in enumerate(files.values()):
        (stage.folder / f"{batch}-{number}").write_bytes(content)
    listed = [{"name": f"{name}.png", "size": len(text)} for name, text in files.items()]
    (stage.folder / f"{batch}.done").write_text(json.dumps(listed))


def left(stage):
    return sorted(path.name for path in stage.folder.iterdir() if path.name != ALIVE)


def test_a_whole_batch_is_handed_on_and_removed(stage, heard):
    send(stage, "b1", one=b"1", two=b"")
    until(lambda: heard.batches)
    assert heard.batches == [[("one.png", b"1"), ("two.png", b"")]]
    until(lambda: left(stage) == [])
    assert heard.errors == []


def test_the_list_stays_while_the_server_may_look_at_it_and_is_taken_once(
    stage, heard, monkeypatch
):
    """jupyter_server writes a file and then reads its size: gone, it would answer 404."""
    monkeypatch.setattr(staging, "LINGER", 60)
    send(stage, "b1", one=b"1")
    until(lambda: heard.batches and left(stage) == ["b1.done"])
    time.sleep(0.1)
    assert left(stage) == ["b1.done"] and len(heard.batches) == 1
    monkeypatch.setattr(staging, "LINGER", 0)
    until(lambda: left(stage) == [])


def test_what_is_not_whole_waits(stage, heard):
    (stage.folder / "b1-0").write_bytes(b"half")
    (stage.folder / "b1.done").write_text('[{"name": "a.png", "si')  # the server is writing it
    time.sleep(0.2)
    assert left(stage) == ["b1-0", "b1.done"] and not heard.batches and not heard.errors


def test_a_file_of_another_size_is_never_taken(stage, heard):
    (stage.folder / "b1-0").write_bytes(b"half")
    (stage.folder / "b1.done").write_text('[{"name": "a.png", "size": 8}]')
    until(lambda: heard.errors)
    assert "a.png did not arrive whole" in heard.errors[0] and not heard.batches
    until(lambda: left(stage) == [])


def test_cancelled_pieces_go_and_late_ones_with_them(stage, heard):
    (stage.folder / "b1-0").write_bytes(b"half")
    (stage.folder / "b1.cut").write_text("")
    until(lambda: left(stage) == [])
    (stage.folder / "b1-1").write_bytes(b"late")
    until(lambda: left(stage) == [])
    assert not heard.batches and not heard.errors


def test_an_upload_that_was_cut_off_is_told_once(stage, heard):
    for name in ("b1-0", "b1-1"):
        path = stage.folder / name
        path.write_bytes(b"half")
        old = time.time() - staging.PATIENCE - 10
        os.utime(path, (old, old))
    until(lambda: heard.errors)
    time.sleep(0.1)
    (error,) = heard.errors
    assert "cut off" in error and "Choose the pictures again" in error
    until(lambda: left(stage) == [])


def test_an_error_of_one_batch_does_not_end_the_thread(stage, heard, monkeypatch):
    from kit.errors import DatasetError

    def refuse(sources):
        raise DatasetError("no picture")

    monkeypatch.setattr(stage, "_take", refuse)
    send(stage, "b1", one=b"1")
    until(lambda: heard.errors)
    assert heard.errors == ["no picture"]
    until(lambda: left(stage) == [])
    monkeypatch.setattr(stage, "_take", heard.take)
    send(stage, "b2", one=b"1")
    until(lambda: heard.batches)


def test_a_job_that_fails_by_a_mistake_of_ours_is_told_and_ends_no_upload(stage, heard):
    def wrong():
        raise ZeroDivisionError("one over none")

    stage.do(wrong)
    until(lambda: heard.errors)
    assert "one over none" in heard.errors[0] and "a mistake of LoRA Kit" in heard.errors[0]
    send(stage, "b2", one=b"1")
    until(lambda: heard.batches)


def test_names_outside_of_the_rule_are_left_alone(stage, heard):
    (stage.folder / "notes.txt").write_text("mine")
    time.sleep(0.1)
    assert left(stage) == ["notes.txt"] and not heard.errors


def test_closing_removes_everything(tmp_path, heard):
    stage = Staging(tmp_path / "shelf" / new_mark(), heard.take, heard.fail)
    until(lambda: (stage.folder / ALIVE).exists())
    stage.close()
    stage.close()
    assert list(tmp_path.iterdir()) == []
    assert not stage._thread.is_alive()


def test_what_another_kernel_left_behind_goes(tmp_path, heard):
    old, young, foreign = (tmp_path / "shelf" / name for name in ("u00000001", "u00000002", "mine"))
    for folder in (old, young, foreign):
        folder.mkdir(parents=True)
        (folder / ALIVE).write_text("")
    long_ago = time.time() - staging.ABANDONED - 10
    os.utime(old / ALIVE, (long_ago, long_ago))
    os.utime(foreign / ALIVE, (long_ago, long_ago))
    stage = Staging(tmp_path / "shelf" / new_mark(), heard.take, heard.fail)
    assert not old.exists() and young.exists() and foreign.exists()
    stage.close()


def text(data):
    return base64.b64encode(data).decode()


def test_pieces_of_colab(stage):
    assert stage.write("b1-0", 0, text(b"abc")) == 3
    assert stage.write("b1-0", 3, text(b"de")) == 5
    assert stage.write("b1-0", 3, text(b"de")) == 5  # it came twice
    assert (stage.folder / "b1-0").read_bytes() == b"abcde"


@pytest.mark.parametrize(
    ("name", "at", "content", "why"),
    [
        ("../b1-0", 0, "", "no name"),
        ("b1-0/x", 0, "", "no name"),
        (ALIVE, 0, "", "no name"),
        ("b1-0", 5, "", "missing"),
        ("b1-0", -1, "", "missing"),
        ("b1-0", 0, "%%%", "damaged"),
    ],
)
def test_pieces_that_are_refused(stage, name, at, content, why):
    with pytest.raises(ValueError, match=why):
        stage.write(name, at, content)
    assert left(stage) == []


def test_the_shelf_lies_near_the_notebook_and_never_in_a_hidden_folder(tmp_path, monkeypatch):
    for name in ("work", ".hidden", "elsewhere"):
        (tmp_path / "root" / name).mkdir(parents=True, exist_ok=True)
    root = (tmp_path / "root").resolve()
    monkeypatch.chdir(root / "work")
    assert shelf_below(root) == root / "work" / staging.SHELF
    monkeypatch.chdir(root / ".hidden")
    assert shelf_below(root) == root / staging.SHELF
    monkeypatch.chdir(tmp_path)
    assert shelf_below(root) == root / staging.SHELF
