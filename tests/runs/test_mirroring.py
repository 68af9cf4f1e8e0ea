import json
import shutil
import time

import pytest

from kit.errors import OutputError
from kit.events import Finished, Noticed
from kit.planning import plan
from kit.runs import mirroring
from kit.runs.mirroring import Mirror, copy_whole, mirrored
from kit.runs.record import RunRecord, read_record, write_record
from kit.runs.run import Run
from kit.sinks import listening
from tests.support.places import be_colab_like
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, same, toy_settings
from tests.support.toys import run as run_all


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1")


@pytest.fixture
def work(tmp_path):
    """A run with a LoRA, a sample, events, a record and a state."""
    run = Run(tmp_path / "work", "cat", "safetensors", "f", home=tmp_path / "drive")
    (run.dir / "state").mkdir(parents=True)
    run.sample_dir.mkdir()
    run.file("-000002").write_bytes(b"a LoRA")
    (run.sample_dir / "cat_000002_00.png").write_bytes(b"a picture")
    (run.dir / "events.jsonl").write_text("{}\n")
    (run.dir / "state" / "state.pt").write_bytes(b"state of step 4")
    write_record(run.dir, RunRecord("f", 1, 4))
    (run.output_dir / "catalog.safetensors").write_bytes(b"another run's")
    return run


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()
    )


ALL = [
    "cat-000002.safetensors",
    "cat.run/events.jsonl",
    "cat.run/run.json",
    "cat.run/state/state.pt",
    "sample/cat_000002_00.png",
]


def test_all_files_of_the_run_and_no_others_are_copied(work):
    with mirrored(work):
        pass
    assert files(work.home) == ALL
    assert (work.home / "cat-000002.safetensors").read_bytes() == b"a LoRA"


def test_files_are_copied_while_it_works(work, monkeypatch):
    monkeypatch.setattr(mirroring, "SECONDS_BETWEEN_LOOKS", 0.01)
    with mirrored(work):
        for _ in range(500):
            if work.home.exists() and files(work.home) == ALL:
                break
            time.sleep(0.01)
        assert files(work.home) == ALL


def test_what_has_not_changed_is_not_copied_again(work, monkeypatch):
    copied = []
    real = mirroring.copy_whole
    monkeypatch.setattr(mirroring, "copy_whole", lambda a, b: copied.append(a.name) or real(a, b))
    mirror = Mirror(work)
    mirror.copy_new(last=True)
    assert len(copied) == 4  # and the record
    mirror.copy_new(last=True)
    assert len(copied) == 4
    (work.dir / "events.jsonl").write_text("{}\n{}\n")
    mirror.copy_new(last=True)
    assert copied[4:] == ["events.jsonl"]


def test_the_state_is_copied_before_the_record_that_tells_of_it(work, monkeypatch):
    order = []
    monkeypatch.setattr(mirroring, "copy_whole", lambda source, _: order.append(source.name))
    monkeypatch.setattr(mirroring, "write_atomically", lambda path, _: order.append(path.name))
    Mirror(work).copy_new(last=True)
    assert order.index("state.pt") < order.index("run.json") == len(order) - 1


def test_a_large_state_is_not_copied_at_every_look(work, monkeypatch):
    mirror = Mirror(work)
    mirror.copy_new()
    (work.dir / "state" / "state.pt").write_bytes(b"state of step 5, longer")
    write_record(work.dir, RunRecord("f", 1, 5))
    mirror.copy_new()
    assert read_record(work.home / "cat.run").step == 4  # neither is copied without the other
    assert (work.home / "cat.run" / "state" / "state.pt").read_bytes() == b"state of step 4"
    mirror.copy_new(last=True)
    assert read_record(work.home / "cat.run").step == 5


def test_a_file_that_the_run_replaced_goes_from_the_copies_too(work):
    mirror = Mirror(work)
    mirror.copy_new(last=True)
    work.file("-000002").unlink()
    mirror.copy_new()
    assert not (work.home / "cat-000002.safetensors").exists()


def test_copies_that_somebody_deletes_are_made_again(work):
    mirror = Mirror(work)
    mirror.copy_new(last=True)
    shutil.rmtree(work.home)
    mirror.copy_new(last=True)
    assert files(work.home) == ALL


def test_work_that_somebody_deletes_takes_no_copy_with_it(work):
    mirror = Mirror(work)
    mirror.copy_new(last=True)
    shutil.rmtree(work.output_dir)
    mirror.copy_new(last=True)
    assert files(work.home) == ALL


def test_a_copy_that_fails_is_told_once_tried_again_and_then_whole(work, monkeypatch):
    failures = 2
    real = mirroring.copy_whole

    def shaky(source, target):
        nonlocal failures
        if source.suffix == ".safetensors" and failures:
            failures -= 1
            raise OSError(5, "Drive does not answer")
        real(source, target)

    monkeypatch.setattr(mirroring, "copy_whole", shaky)
    mirror = Mirror(work)
    mirror.copy_new()
    told = list(mirror.notices())
    assert "Drive does not answer" in told[0].text
    assert "cat-000002.safetensors" in told[0].text
    mirror.copy_new()
    assert list(mirror.notices()) == []
    mirror.copy_new()
    assert (work.home / "cat-000002.safetensors").read_bytes() == b"a LoRA"


def test_a_storage_that_stays_away_ends_nothing_and_is_told(work, monkeypatch):
    def away(_source, _target):
        raise OSError(5, "Drive does not answer")

    monkeypatch.setattr(mirroring, "copy_whole", away)
    monkeypatch.setattr(mirroring.time, "sleep", lambda _: None)
    with mirrored(work) as mirror:
        pass
    assert not (work.home / "cat.run").exists(), "a record without its state"
    assert "4 files are not yet copied" in next(mirror.notices()).text


def test_a_copy_that_reads_back_otherwise_is_not_kept(tmp_path, monkeypatch):
    source, target = tmp_path / "source.bin", tmp_path / "kept" / "copy.bin"
    source.write_bytes(b"right")
    target.parent.mkdir()
    target.write_bytes(b"the whole copy of before")
    real = mirroring.hashlib.file_digest

    def damaged(file, kind):
        digest = real(file, kind)
        digest.update(b"a flipped bit")
        return digest

    monkeypatch.setattr(mirroring.hashlib, "file_digest", damaged)
    with pytest.raises(OSError, match="reads back otherwise"):
        copy_whole(source, target)
    assert target.read_bytes() == b"the whole copy of before"
    assert [path.name for path in target.parent.iterdir()] == ["copy.bin"]


def test_a_run_without_a_home_is_left_alone(tmp_path):
    run = Run(tmp_path / "out", "cat", "safetensors", "f")
    with mirrored(run) as mirror:
        assert list(mirror.notices()) == []
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------- whole runs


@pytest.fixture
def asked(model, tmp_path, monkeypatch):
    here = be_colab_like(monkeypatch, tmp_path)
    images = draw_images(here.slow / "images")

    def settings(out, **changes):
        return toy_settings(model, images, out, **changes)

    return settings


def test_a_run_on_drive_works_elsewhere_and_ends_there(asked, tmp_path):
    drive = tmp_path / "drive" / "loras"
    planned = plan(asked(drive))
    assert planned.run.home == drive
    assert str(drive / "toy.safetensors") in str(planned)
    events = run_all(asked(drive))
    assert isinstance(events[-1], Finished)
    assert "work" in events[-1].path
    assert same(lora(drive), lora(planned.run.output_dir))
    assert json.loads((drive / "toy.run" / "run.json").read_text())["finished"]
    assert not (drive / "toy.run" / "state").exists() or not files(drive / "toy.run" / "state")


def test_a_lost_session_goes_on_from_the_copies_bit_for_bit(asked, tmp_path):
    straight = run_all(asked(tmp_path / "straight"))
    drive = tmp_path / "drive" / "loras"
    first = leave_after(5, asked(drive))
    shutil.rmtree(tmp_path / "work")  # the machine is gone
    planned = plan(asked(drive))
    assert planned.run.from_step == 5
    with listening(planned.run) as tell:
        for event in run_rest(asked(drive), tell):
            first.append(event)
    assert losses(first) == losses(straight)
    assert same(lora(drive), lora(tmp_path / "straight"))


def run_rest(settings, tell):
    for event in run_all(settings):
        tell(event)
        yield event


def test_a_name_that_is_taken_on_drive_is_taken(asked, tmp_path):
    drive = tmp_path / "drive" / "loras"
    drive.mkdir(parents=True)
    (drive / "toy-000003.safetensors").write_bytes(b"of another session")
    assert plan(asked(drive)).run.name == "toy-2"


def test_copies_that_cannot_be_read_are_an_error_with_a_remedy(asked, tmp_path, monkeypatch):
    drive = tmp_path / "drive" / "loras"
    leave_after(3, asked(drive))
    shutil.rmtree(tmp_path / "work")

    def away(*_arguments, **_options):
        raise OSError(5, "Drive does not answer")

    monkeypatch.setattr("kit.runs.run.shutil.copytree", away)
    with pytest.raises(OutputError, match="cannot be copied from"):
        run_all(asked(drive))


def test_images_are_read_from_the_machines_own_disk(asked, tmp_path, monkeypatch):
    opened = []
    from kit.caching import latents

    real = latents.open_upright
    monkeypatch.setattr(
        latents, "open_upright", lambda p, **how: opened.append(p) or real(p, **how)
    )
    events = run_all(asked(tmp_path / "drive" / "loras", max_train_steps=1))
    assert len(opened) == 3
    assert all((tmp_path / "work") in path.parents for path in opened)
    assert [e.done for e in events if getattr(e, "what", "") == "copies of images"] == [1, 2, 3]


def test_images_that_cannot_be_copied_are_read_where_they_lie(asked, tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kit.training.staging.shutil.copy2", full)
    events = run_all(asked(tmp_path / "drive" / "loras", max_train_steps=1))
    assert any(isinstance(e, Noticed) and "3 images could not be copied" in e.text for e in events)
    assert isinstance(events[-1], Finished)
