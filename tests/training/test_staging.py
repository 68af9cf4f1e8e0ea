from kit.basemodel import ModelFile
from kit.training.staging import staged_model
from tests.support.parts import outcome
from tests.support.places import be_colab_like


def test_a_model_file_on_slow_storage_is_copied_once(tmp_path, monkeypatch):
    here = be_colab_like(monkeypatch, tmp_path)
    path = here.slow / "base.safetensors"
    path.write_bytes(b"weights")
    file = ModelFile(path, False, "sd1", "epsilon", False)
    first, _ = outcome(staged_model(file))
    assert here.scratch in first.path.parents
    assert first.path.name == "base.safetensors"
    assert first.path.read_bytes() == b"weights"
    stamp = first.path.stat().st_ctime_ns
    again, _ = outcome(staged_model(file))
    assert again.path.stat().st_ctime_ns == stamp
    path.write_bytes(b"other weights")
    changed, _ = outcome(staged_model(file))
    assert changed.path.read_bytes() == b"other weights"


def test_what_is_here_already_stays_where_it_is(tmp_path, monkeypatch):
    be_colab_like(monkeypatch, tmp_path)
    path = tmp_path / "base.safetensors"
    path.write_bytes(b"weights")
    file = ModelFile(path, False, "sd1", "epsilon", False)
    assert outcome(staged_model(file))[0] is file


def test_without_room_it_is_read_where_it_lies(tmp_path, monkeypatch):
    here = be_colab_like(monkeypatch, tmp_path)
    monkeypatch.setattr("kit.training.staging.SPARE", 10**18)
    path = here.slow / "base.safetensors"
    path.write_bytes(b"weights")
    file = ModelFile(path, False, "sd1", "epsilon", False)
    assert outcome(staged_model(file))[0] is file
