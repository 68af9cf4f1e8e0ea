"""No space left, met by each file that a run writes: told in words, and no bit is lost by it.

The `.part` beside the file leads to /dev/full, so the writer itself meets the kernel's own error; a
cache's writer replaces such a link, and is handed the error. events.jsonl: tests/sinks.
"""

import errno
import fnmatch
import os
import sys
from pathlib import Path

import pytest

import kit
from kit.errors import OutputError
from kit.events import Noticed
from kit.runs import atomic_write, state_files
from kit.sinks.tensorboard_log import TensorBoard
from tests.faults.comparing import differences
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, toy_settings

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has such a disk")
STEPS = 5
NEED = "MB are needed"


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    model = write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)

    def settings(place):
        images = place / "images"
        if not images.exists():
            draw_images(images)
        return toy_settings(
            model,
            images,
            place / "out",
            max_train_steps=STEPS,
            text_encoder_lr=0,
            save_every_n_steps=2,
            save_state=True,
            cache_latents=True,
            cache_latents_to_disk=True,
            cache_text_encoder_outputs=True,
            cache_text_encoder_outputs_to_disk=True,
            sample_prompts="a --w 64 --h 64 --s 1 --d 1",
            sample_every_n_steps=3,
            log_with="tensorboard",
            logging_dir=str(place / "logs"),
        )

    return settings


@pytest.fixture(autouse=True)
def kept_at_every_step(monkeypatch):
    monkeypatch.setattr("kit.training.checkpoint.SHARE", 1e9)
    monkeypatch.setattr("kit.sinks.loss_picture.SHARE", 1e9)  # a disk that refuses is tried again


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kit.training.checkpoint.SHARE", 1e9)
        list(kit.train(kit.plan(asked(place))))
    return place / "out"


def full_at(monkeypatch, pattern):
    """The first writing of such a path meets a full disk; returns what was met."""
    met = []

    def guarded(write):
        def writes(path, how):
            if not met and fnmatch.fnmatch(str(path), f"*/{pattern}"):
                met.append(path)
                if "captions" in pattern or "latents" in pattern:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                path.with_name(f"{path.name}.part").symlink_to("/dev/full")
            return write(path, how)

        return writes

    for original in (atomic_write.write_atomically, state_files.replace_state):
        stand_in, name = guarded(original), original.__name__
        for module in [m for key, m in sys.modules.items() if key.partition(".")[0] == "kit"]:
            if getattr(module, name, None) is original:
                monkeypatch.setattr(module, name, stand_in)
    return met


def unequal(whole, out):
    """But for where the curves lie, which is named by the time."""
    return [one for one in differences(whole, out) if not one.startswith("toy.run/logs.json")]


def half_written(place):
    return [path for path in place.rglob("*") if path.name.endswith(".part") or path.is_symlink()]


# The file, and what its message says beside the path and "No space left".
ENDS = {
    "toy-step00000002.safetensors": NEED,
    "toy.safetensors": NEED,
    "toy.run/state/state.pt": NEED,
    "toy.run/run.json": "MB are free",
    "toy.run/run.toml": "MB are free",
    "toy-step00000002-state/state.pt": NEED,
    "toy-step00000004-state/run.json": "MB are free",
}
GOES_ON = {
    "toy.run/made_of.json": NEED,
    "toy.run/loss.png": "MB are free",
    "sample/toy_*.png": NEED,
    "latents/*.safetensors": "it stays in memory",
    "captions/*.safetensors": "it stays in memory",
}


@pytest.mark.parametrize("pattern", ENDS)
def test_a_run_that_cannot_do_without_it_ends_in_words_and_goes_on_to_the_same_bits(
    asked, whole, tmp_path, monkeypatch, pattern
):
    with monkeypatch.context() as patch:
        met = full_at(patch, pattern)
        with pytest.raises(OutputError) as error:
            list(kit.train(kit.plan(asked(tmp_path))))
    [path] = met
    told = str(error.value)
    assert "no space left" in told.lower()
    assert str(path) in told or str(path.parent) in told or "output_dir" in told
    assert ENDS[pattern] in told
    assert half_written(tmp_path) == []
    list(kit.train(kit.plan(asked(tmp_path))))
    assert unequal(whole, tmp_path / "out") == []


@pytest.mark.parametrize("pattern", GOES_ON)
def test_what_the_run_can_do_without_is_told_and_it_goes_on(
    asked, whole, tmp_path, monkeypatch, pattern
):
    met = full_at(monkeypatch, pattern)
    events = list(kit.train(kit.plan(asked(tmp_path))))
    [path] = met
    told = [event.text for event in events if isinstance(event, Noticed)]
    [text] = [text for text in told if "no space left" in text.lower()]
    assert str(path) in text or str(path.parent) in text
    assert GOES_ON[pattern] in text
    assert half_written(tmp_path) == []
    differing = unequal(whole, tmp_path / "out")
    # What was not written; the folder of the pictures holds the caches, and is told apart by them.
    own = "sample" if pattern.startswith("sample") else "made_of"
    assert [one for one in differing if own not in one.lower()] == []


def test_a_logger_without_space_is_muted_and_names_its_file(asked, whole, tmp_path, monkeypatch):
    opened = TensorBoard._open

    def full(self, from_step):
        opened(self, from_step)
        self._file.close()
        self._file = open("/dev/full", "wb", buffering=0)  # noqa: PTH123, SIM115  it is no path
        self._records._writer = self._file

    monkeypatch.setattr(TensorBoard, "_open", full)
    events = list(kit.train(kit.plan(asked(tmp_path))))
    told = [event.text for event in events if isinstance(event, Noticed)]
    [text] = [text for text in told if "no space left" in text.lower()]
    assert str(tmp_path / "logs") in text
    assert "TensorBoard failed and is muted" in text
    assert unequal(whole, tmp_path / "out") == []
