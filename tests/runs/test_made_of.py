"""What tells a folder's content: its files, but for hidden folders, where caches lie."""

import hashlib
import json

import pytest

from kit.runs import differences, made_of
from kit.runs.made_of import MadeOf, earlier_identity, identity, keep, read_made_of


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "masks"
    (place / "2_ball").mkdir(parents=True)
    (place / "2_ball" / "a.png").write_bytes(b"12345")
    (place / "notes.txt").write_bytes(b"1")
    return place


def cached(folder):
    """What an earlier run has left beside its pictures."""
    (folder / ".kit_cache" / "latents").mkdir(parents=True)
    (folder / ".kit_cache" / "hashes.json").write_text("{}")
    (folder / ".kit_cache" / "latents" / "f00.safetensors").write_bytes(b"123")


def hashed(*files):
    text = json.dumps(sorted(files))
    return f"folder {hashlib.sha256(text.encode()).hexdigest()}"


def test_caches_are_no_part_of_a_folder_and_are_not_looked_through(folder, monkeypatch):
    before = identity(str(folder))
    assert before == hashed(("2_ball/a.png", 5), ("notes.txt", 1))
    cached(folder)
    walked, real = [], made_of.os.walk

    def walk(top):
        for root, inner, names in real(top):
            walked.append(root)
            yield root, inner, names

    monkeypatch.setattr(made_of.os, "walk", walk)
    assert identity(str(folder)) == before
    assert walked == [str(folder), str(folder / "2_ball")]
    (folder / "2_ball" / "b.png").write_bytes(b"1")
    assert identity(str(folder)) != before


def test_what_was_kept_until_then_is_still_the_same_folder(folder):
    cached(folder)
    old = hashed((".kit_cache/latents/f00.safetensors", 3), ("2_ball/a.png", 5), ("notes.txt", 1))
    assert earlier_identity(str(folder)) == old != identity(str(folder))
    now = MadeOf(files={"conditioning_data_dir": str(folder)})

    def told(kept):
        return list(differences._changed_places(MadeOf(files=kept), now))

    assert told({"conditioning_data_dir": old}) == []
    assert told({"conditioning_data_dir": identity(str(folder))}) == []
    (folder / "2_ball" / "a.png").write_bytes(b"123456")
    assert len(told({"conditioning_data_dir": old})) == 1


def test_folders_whose_pictures_are_compared_one_by_one_are_not_walked(folder, monkeypatch):
    asked, real = [], made_of.identity
    monkeypatch.setattr(made_of, "identity", lambda place: asked.append(place) or real(place))
    places = {"train_data_dir": "pictures", "conditioning_data_dir": str(folder)}
    run_dir = folder / "toy.run"
    run_dir.mkdir()
    assert keep(run_dir, MadeOf(files=places)) == ""
    assert asked == [str(folder)]
    assert read_made_of(run_dir).files.keys() == {"conditioning_data_dir"}
    now = MadeOf(files=places)
    (run_dir / "made_of.json").unlink()
    run_dir.rmdir()
    told = list(differences._changed_places(MadeOf(files={"train_data_dir": "x"}), now))
    assert told == ["conditioning_data_dir: it was blank"]
