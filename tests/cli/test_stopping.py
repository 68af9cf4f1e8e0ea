"""`kit train` is told to stop before its first step: exit code 3, nothing held or half done."""

import os
import signal

import pytest

import kit.cli
from kit.caching.latents import LatentEncoder
from kit.cli import STOPPED, main
from kit.runs.lock import NAME
from kit.training import caches, preparation
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, toy_settings


class Killed(BaseException):
    """What the signal would have done to a process that does not listen."""


@pytest.fixture
def deadly():
    """A signal that nobody hears ends the test, not the process of all tests."""

    def die(number, frame):
        raise Killed

    before = {number: signal.signal(number, die) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def toml(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    model = write_tiny(folder / "model", "sd1", thin=True)
    settings = toy_settings(
        model, draw_images(folder / "images"), folder / "out",
        max_train_steps=2, text_encoder_lr=0, cache_latents=True, cache_text_encoder_outputs=True,
    )  # fmt: skip
    (folder / "run.toml").write_text(settings.to_toml(), "utf-8")
    return folder / "run.toml"


MOMENTS = {
    "planning": (kit.cli, "planned"),
    "loading": (preparation, "load_model"),
    "caching latents": (LatentEncoder, "encode"),
    "caching captions": (caches, "all_captions"),
    "restoring": (preparation, "Checkpoint"),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["term", "hup"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_before_the_first_step_ends_it_in_good_order(
    toml, deadly, monkeypatch, capsys, moment, number
):
    owner, name = MOMENTS[moment]
    whole, sent = getattr(owner, name), []

    def signalled(*args, **more):
        if not sent:
            sent.append(os.kill(os.getpid(), number))
        return whole(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, signalled)
        assert main(["train", str(toml)]) == STOPPED
    assert sent
    assert "step 1" not in capsys.readouterr().out
    out = toml.parent / "out"
    assert not list(out.rglob(NAME))
    assert not list(out.rglob("*.part"))
    assert not list(out.glob("*.run")), "nothing was learned: the name is free again"
    assert signal.getsignal(number) is not signal.SIG_DFL


def test_it_begins_as_if_nothing_had_been(toml, deadly):
    assert main(["train", str(toml)]) == 0
    assert (toml.parent / "out" / "toy.safetensors").is_file()
