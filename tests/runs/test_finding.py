"""Which run a person means."""

import pytest

from kit.errors import KitError
from kit.hosts import Host
from kit.runs.finding import find_run
from kit.runs.lock import at_work_in
from kit.runs.run import place_for


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "cat-2", "dog.v1"):
        (tmp_path / "output" / f"{name}.run").mkdir(parents=True)
    return Host("plain", tmp_path, tmp_path / "output", persistent=True)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("output/cat.run", "cat"),
        ("output/cat.run/", "cat"),
        ("output/cat", "cat"),
        ("cat", "cat"),
        ("cat.run", "cat"),
        ("cat-2", "cat-2"),
        ("output/cat.safetensors", "cat"),
        ("output/cat-000002.safetensors", "cat"),
        ("output/cat-step00000300.safetensors", "cat"),
        ("output/cat-2.safetensors", "cat-2"),
        ("output/cat.run/events.jsonl", "cat"),
        ("output/dog.v1", "dog.v1"),
    ],
)
def test_a_folder_a_name_and_a_file_of_it_mean_a_run(here, text, name):
    found = find_run(text, here=here)
    assert (found.name, found.works_in) == (name, found.kept_in)
    assert found.kept_in.samefile(here.output_folder / f"{name}.run")


@pytest.mark.parametrize("text", ["output/cats", "cats", "output/cats.run"])
def test_what_is_no_run_is_told_with_those_that_are(here, text):
    with pytest.raises(KitError, match="did you mean cat") as refused:
        find_run(text, here=here)
    assert "There are cat, cat-2, dog.v1." in str(refused.value)


def test_a_run_whose_files_lie_on_a_slow_drive_is_asked_where_it_works(tmp_path):
    drive, scratch = tmp_path / "drive", tmp_path / "scratch"
    here = Host("colab", tmp_path, drive, persistent=True, slow=drive, scratch=scratch)
    (drive / "cat.run").mkdir(parents=True)
    working = place_for(drive, scratch) / "cat.run"
    assert find_run(drive / "cat", here=here).works_in == drive / "cat.run"
    with at_work_in(working):
        found = find_run(drive / "cat", here=here)
    assert (found.kept_in, found.works_in) == (drive / "cat.run", working)
