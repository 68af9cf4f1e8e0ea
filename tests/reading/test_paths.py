"""Paths of any origin: those that no file can have are refused in words."""

import os
from pathlib import Path

import pytest

from kit.dataset.images import scan
from kit.errors import KitError, SettingsError, Unreadable
from kit.reading import paths
from kit.reading.paths import path_of
from kit.runs.resume import find_start
from kit.settings import Settings, declarations


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a\0b", "NUL"),
        ("~nosuchuser/x", "home folder of nosuchuser"),
        ("x/" + "n" * 256, "more than 255 bytes"),
        ("é" * 128, "more than 255 bytes"),
        ("d/" * 2100, "more than 4096 bytes"),
        ("\ud800", "half of a character"),
    ],
)
def test_what_no_path_can_be_is_refused_with_its_setting(text, word):
    with pytest.raises(Unreadable, match=word) as caught:
        path_of(text, "train_data_dir")
    assert str(caught.value).startswith("train_data_dir = ")
    assert "\0" not in str(caught.value)
    assert len(str(caught.value)) < 400
    for ask in (scan, lambda text: find_start(text)):
        with pytest.raises(KitError, match=word):
            ask(text)


def test_home_is_filled_in(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of("~/a b/c") == tmp_path / "a b" / "c"
    assert path_of(Path("~")) == tmp_path
    assert path_of("n" * 255) == Path("n" * 255)


def test_a_file_that_is_called_so_is_no_home_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~nosuchuser").mkdir()
    assert path_of("~nosuchuser/x") == Path("~nosuchuser/x")


def test_questions_about_a_place_are_answered_and_not_raised(tmp_path):
    for path in (Path("n" * 300), Path("a\0b"), tmp_path / "x" / ("d/" * 3000)):
        assert not (paths.is_there(path) or paths.is_file(path) or paths.is_folder(path))
    assert paths.is_folder(tmp_path)


def test_a_link_in_a_circle_is_left_as_it_is(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert paths.resolved(tmp_path / "a").parent == Path(os.path.realpath(tmp_path))


PATHS = [name for name, declared in declarations().items() if declared.type == "path"]


@pytest.mark.parametrize("name", PATHS)
def test_no_setting_holds_a_path_that_cannot_be(name):
    for text in ("a\0b", "~nosuchuser/x", "n" * 300):
        with pytest.raises(SettingsError, match=name):
            Settings().replace(**{name: text})


def test_a_link_may_be_longer_than_a_name():
    link = "https://example.invalid/" + "q" * 400
    assert Settings().replace(pretrained_model_name_or_path=link)
