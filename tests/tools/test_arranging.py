"""Arranging a data set: originals stay as they are, and nothing is replaced."""

import re
from pathlib import Path

import pytest

from kit import planning
from kit.cli import main
from kit.errors import DatasetError, KitError, OutputError, SettingsError
from kit.events import Cached
from kit.settings import Settings
from kit.settings.tools import Arrangement, Balance, filled
from kit.tools.arranging import arrange, arranged, balance, balanced
from tests.support.pictures import draw, folder_of


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files)}


@pytest.fixture
def asked(tmp_path):
    photos, balls = tmp_path / "photos", tmp_path / "balls"
    for number in range(3):
        draw(photos / f"{number}.png", color=(number * 50, 0, 0))
    (photos / "0.txt").write_text("a zib ball, red")
    (photos / "1.caption").write_text("another")
    (photos / "notes.md").write_text("not for the training")
    draw(balls / "b.png")
    answers = {
        "instance_prompt": "zib", "class_prompt": "ball", "training_repeats": 4,
        "training_images": str(photos), "reg_images": str(balls),
        "destination": str(tmp_path / "out"),
    }  # fmt: skip
    return lambda **changes: filled(Arrangement, **answers | changes)


def test_images_and_captions_are_copied_and_train(asked, tmp_path):
    before = contents(tmp_path / "photos")
    events = list(arrange(asked()))
    assert [event.done for event in events if isinstance(event, Cached)] == list(range(1, 7))
    assert contents(tmp_path / "photos") == before
    made = contents(tmp_path / "out")
    assert sorted(made) == [
        "img/4_zib ball/0.png", "img/4_zib ball/0.txt", "img/4_zib ball/1.caption",
        "img/4_zib ball/1.png", "img/4_zib ball/2.png", "reg/1_ball/b.png",
    ]  # fmt: skip
    assert made["img/4_zib ball/0.txt"] == before["0.txt"]
    assert (tmp_path / "out" / "model").is_dir()
    assert (tmp_path / "out" / "log").is_dir()


def test_the_settings_that_it_names_are_a_training_on_it(asked):
    settings = arranged(asked()).settings
    list(arrange(asked()))
    plan = planning.plan(Settings().replace(**settings, resolution="64,64"))
    assert [(image.repeats, image.is_reg) for image in plan.images] == [(4, False)] * 3 + [
        (1, True)
    ]
    assert [image.caption for image in plan.images] == [
        "a zib ball, red", "another", "zib ball", "ball",
    ]  # fmt: skip


def test_without_regularisation_there_is_no_such_folder(asked, tmp_path):
    for number, changes in enumerate([{"reg_images": ""}, {"reg_repeats": 0}]):
        root = tmp_path / f"out{number}"
        list(arrange(asked(**changes, destination=root)))
        assert sorted(path.name for path in root.iterdir()) == ["img", "log", "model"]


def test_everything_blank_is_told_at_once():
    with pytest.raises(SettingsError) as refused:
        list(arrange(Arrangement()))
    assert len(refused.value.problems) == 4


def test_nothing_is_replaced(asked, tmp_path):
    list(arrange(asked()))
    before = contents(tmp_path / "out")
    (tmp_path / "photos" / "0.txt").write_text("changed")
    with pytest.raises(OutputError, match="there already"):
        list(arrange(asked()))
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"training_images": "nowhere"}, "training_images = nowhere is no folder"),
        ({"destination": "PHOTOS"}, "inside each other"),
        ({"training_images": "ROOT"}, "No images lie directly in"),
        ({"reg_images": "nowhere"}, "reg_images = nowhere is no folder"),
    ],
)
def test_folders_that_will_not_do_are_told(asked, tmp_path, changes, told):
    places = {"PHOTOS": tmp_path / "photos", "ROOT": tmp_path / "empty"}
    (tmp_path / "empty").mkdir()
    placed = {name: str(places.get(value, value)) for name, value in changes.items()}
    with pytest.raises(KitError) as refused:
        list(arrange(asked(**placed)))
    assert told in str(refused.value)
    assert not list(tmp_path.rglob(".*.part"))


@pytest.mark.parametrize("name", ["instance_prompt", "class_prompt"])
def test_a_word_that_is_no_folder_name_is_refused(asked, name):
    with pytest.raises(SettingsError, match=re.escape("leave out /")):
        asked(**{name: "a/b"})


def test_a_copy_that_breaks_off_leaves_no_half_folder(asked, tmp_path):
    job = arrange(asked())
    next(job)
    job.close()
    assert not (tmp_path / "out" / "img" / "4_zib ball").exists()
    list(arrange(asked()))
    assert len(contents(tmp_path / "out")) == 6


# ---------------------------------------------------------------------------------- balance


@pytest.fixture
def folders(tmp_path):
    square = (64, 64)
    concepts = {"5_cat": [square] * 2, "10_dog": [square] * 4, "bird": [square], "3_empty": []}
    return folder_of(tmp_path / "set", concepts)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_repeats_make_every_folder_count_about_equally(folders):
    found = balanced(Balance(dataset_folder=str(folders), views=10))
    assert [(r.folder.name, r.images, r.before, r.after) for r in found] == [
        ("10_dog", 4, 10, 2),
        ("5_cat", 2, 5, 5),
    ]


def test_nothing_is_renamed_unless_asked(folders):
    before = names(folders)
    told = list(balance(Balance(dataset_folder=str(folders), views=10)))
    assert names(folders) == before
    assert "10_dog: 4 images, 10 repeats -> 2 repeats, seen 8 times" in told[0].text
    assert "nothing was renamed" in told[-1].text


def test_folders_are_renamed_with_all_that_is_in_them(folders):
    before = contents(folders / "10_dog")
    list(balance(Balance(dataset_folder=str(folders), views=10, rename=True)))
    assert names(folders) == ["2_dog", "3_empty", "5_cat", "bird"]
    assert contents(folders / "2_dog") == before


def test_folders_without_a_number_are_left_alone_unless_asked(folders):
    asked = Balance(dataset_folder=str(folders), views=10, rename=True, all_folders=True)
    list(balance(asked))
    assert names(folders) == ["10_bird", "2_dog", "3_empty", "5_cat"]


def test_two_folders_may_take_each_others_names(tmp_path):
    square = (64, 64)
    root = folder_of(tmp_path / "set", {"1_cat": [square], "2_cat": [square] * 2})
    list(balance(Balance(dataset_folder=str(root), views=2, rename=True)))
    assert [len(list((root / name).iterdir())) for name in ("1_cat", "2_cat")] == [2, 1]


def test_a_name_that_is_taken_stops_before_anything_is_renamed(folders):
    (folders / "2_dog").mkdir()
    before = names(folders)
    with pytest.raises(OutputError, match="there already"):
        list(balance(Balance(dataset_folder=str(folders), views=10, rename=True)))
    assert names(folders) == before


def test_a_rename_that_fails_is_taken_back(folders, monkeypatch):
    before, rename, count = names(folders), Path.rename, []

    def fails_once(self, target):
        count.append(target)
        if len(count) == 3:
            raise PermissionError(13, "denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OutputError, match="old name again"):
        list(balance(Balance(dataset_folder=str(folders), views=20, rename=True)))
    assert names(folders) == before


@pytest.mark.parametrize(("path", "kind"), [("", SettingsError), ("nowhere", DatasetError)])
def test_a_missing_folder_is_told(path, kind):
    with pytest.raises(kind):
        list(balance(Balance(dataset_folder=path)))


# --------------------------------------------------------------------------------- commands


def test_the_commands_do_both(asked, folders, tmp_path, capsys):
    answers = asked().model_dump()
    words = [f"--{name.replace('_', '-')}={value}" for name, value in answers.items()]
    assert main(["arrange", *words]) == 0
    assert "6 copies of images and captions" in capsys.readouterr().out
    assert main(["balance", f"--dataset-folder={folders}", "--views=10", "--rename"]) == 0
    assert "10_dog is now 2_dog" in capsys.readouterr().out
    assert main(["balance", f"--dataset-folder={folders}", "--views=none"]) == 2
    assert "views: 'none' is not a whole number from 1" in capsys.readouterr().err
