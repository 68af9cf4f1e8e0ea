import json

import pytest

from kit.errors import OutputError
from kit.runs import run as runs
from kit.runs.record import RunRecord, read_record, write_record
from kit.runs.run import begin, choose_run


def choose(folder, name="cat", fingerprint="abc", **more):
    return choose_run(str(folder), name, ending="safetensors", fingerprint=fingerprint, **more)[0]


def leave(folder, name="cat", **record):
    place = folder / f"{name}.run"
    (place / "state").mkdir(parents=True)
    (place / "state" / "state.pt").touch()
    write_record(place, RunRecord(**{"fingerprint": "abc", "seed": 7, "step": 20, **record}))


def test_a_free_name_is_a_new_run(tmp_path):
    run = choose(tmp_path / "output")
    assert (run.name, run.from_step, run.seed, run.renamed_from) == ("cat", 0, 0, "")
    assert not run.resumes
    assert not (tmp_path / "output").exists(), "choosing writes nothing"


@pytest.mark.parametrize(
    "left", [[], ["at_work.json"], ["at_work.json", "run.toml", "run.json.part"]]
)
def test_a_folder_that_a_kill_left_before_its_record_takes_no_name(tmp_path, left):
    (tmp_path / "cat.run").mkdir()
    for name in left:
        (tmp_path / "cat.run" / name).touch()
    assert choose(tmp_path).name == "cat"


@pytest.mark.parametrize("left", ["run.json", "events.jsonl", "somebody's.txt"])
def test_a_folder_with_anything_else_takes_its_name(tmp_path, left):
    (tmp_path / "cat.run").mkdir()
    (tmp_path / "cat.run" / left).touch()
    assert choose(tmp_path).name == "cat-2"


def test_its_places_follow_from_its_name(tmp_path):
    run = choose(tmp_path)
    assert run.dir == tmp_path / "cat.run"
    assert run.file("-000002") == tmp_path / "cat-000002.safetensors"
    assert run.sample_dir == tmp_path / "sample"


def test_an_unfinished_run_of_the_same_settings_goes_on(tmp_path):
    leave(tmp_path)
    run = choose(tmp_path)
    assert (run.name, run.from_step, run.seed, run.resumes) == ("cat", 20, 7, True)


def test_a_run_that_kept_nothing_yet_begins_again_under_its_name(tmp_path):
    leave(tmp_path, step=0)
    run = choose(tmp_path)
    assert (run.name, run.from_step, run.seed, run.resumes) == ("cat", 0, 7, False)


@pytest.mark.parametrize(("seed", "name"), [(0, "cat"), (7, "cat"), (8, "cat-2")])
def test_another_seed_is_another_run(tmp_path, seed, name):
    leave(tmp_path)
    assert choose(tmp_path, seed=seed).name == name


@pytest.mark.parametrize("record", [{"fingerprint": "other"}, {"finished": True}])
def test_other_settings_or_a_finished_run_give_a_new_name(tmp_path, record):
    leave(tmp_path, **record)
    run = choose(tmp_path)
    assert (run.name, run.from_step, run.renamed_from) == ("cat-2", 0, "cat")


def test_the_next_free_number_is_taken(tmp_path):
    leave(tmp_path, finished=True)
    leave(tmp_path, "cat-2", fingerprint="other")
    assert choose(tmp_path).name == "cat-3"


def test_an_unfinished_run_is_found_under_its_number(tmp_path):
    leave(tmp_path, finished=True)
    leave(tmp_path, "cat-2", step=5)
    assert (choose(tmp_path).name, choose(tmp_path).from_step) == ("cat-2", 5)


@pytest.mark.parametrize(
    "file", ["cat.safetensors", "cat-000002.safetensors", "cat-step00000300.safetensors"]
)
def test_a_lora_file_without_its_run_is_not_overwritten(tmp_path, file):
    (tmp_path / file).write_bytes(b"somebody's")
    assert choose(tmp_path).name == "cat-2"


@pytest.mark.parametrize(
    "file", ["cat.ckpt", "cat-2.safetensors", "cats.safetensors", "a-cat-000002.safetensors"]
)
def test_files_of_other_names_do_not_matter(tmp_path, file):
    (tmp_path / file).write_bytes(b"")
    assert choose(tmp_path).name == "cat"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"seed": 3}', '{"what": 1}'])
def test_a_record_that_cannot_be_read_is_not_gone_on_with_nor_overwritten(tmp_path, text):
    (tmp_path / "cat.run").mkdir()
    (tmp_path / "cat.run" / "run.json").write_text(text, "utf-8")
    assert read_record(tmp_path / "cat.run") is None
    assert choose(tmp_path).name == "cat-2"


def test_the_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert choose("~/output").output_dir == tmp_path / "output"


def test_begin_writes_settings_and_record(tmp_path):
    run = choose(tmp_path / "a" / "b")
    begin(run, seed=5, settings_toml='epoch = 1\ntitle = "Käse"\n')
    assert (run.dir / "run.toml").read_text("utf-8") == 'epoch = 1\ntitle = "Käse"\n'
    assert read_record(run.dir) == RunRecord("abc", 5, 0, finished=False)
    assert json.loads((run.dir / "run.json").read_text("utf-8"))["seed"] == 5


def test_begin_does_not_forget_how_far_a_run_has_come(tmp_path):
    leave(tmp_path)
    begin(choose(tmp_path), seed=7, settings_toml="")
    assert read_record(tmp_path / "cat.run").step == 20


def test_a_place_that_cannot_be_written_is_told_by_its_setting(tmp_path):
    file = tmp_path / "output"
    file.write_text("a file, not a folder", "utf-8")
    with pytest.raises(OutputError, match=r"output_dir = .*output cannot be written") as caught:
        begin(choose(file), seed=5, settings_toml="")
    assert "Choose another output_dir" in str(caught.value)


def test_a_full_disk_is_told_by_its_setting(tmp_path, monkeypatch):
    def full(_path, _write):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write_atomically", full)
    with pytest.raises(OutputError, match="No space left on device"):
        begin(choose(tmp_path), seed=5, settings_toml="")
