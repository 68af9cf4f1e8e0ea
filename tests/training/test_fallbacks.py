"""A run whose optimizer could not run where it began goes on with what took that one's place."""

import functools
from contextlib import contextmanager, nullcontext

import pytest
from safetensors import safe_open

from kit import catalog
from kit.errors import OutputError
from kit.events import Noticed
from kit.optim import making
from kit.runs.state_files import STATE_FILE
from kit.training.state_file import read_state, write_state
from tests.support.ranks import train_in
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings

CASES = {
    "SGDNesterov8bit": {"unet_lr": 0.1, "text_encoder_lr": 0.1},
    "AdamW8bit": {},
}
GOES_ON = "the state was made with {}, which takes the place of {} where that cannot run"


@contextmanager
def without_8_bits():
    """Any machine where bitsandbytes' optimizers do not run."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(making, "_cannot_run", lambda *_: "no kernel for this device")
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture(scope="module")
def asked(model, tmp_path_factory):
    """Of five steps, with weights large enough for 8-bit states."""
    images = draw_images(tmp_path_factory.mktemp("images"), count=2)

    def settings(out, name, **changes):
        own = {"optimizer_type": name, "max_train_steps": 5, "network_dim": 128}
        return toy_settings(model, images, out, **own | CASES.get(name, {}) | changes)

    return settings


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    """Runs that were not left, with and without 8 bits: what each told, and where its file lies."""

    @functools.cache
    def of(name, *, falls_back):
        out = tmp_path_factory.mktemp("whole")
        with without_8_bits() if falls_back else nullcontext():
            return run(asked(out, name)), out

    return of


def told(events) -> list[str]:
    return [event.text for event in events if isinstance(event, Noticed)]


def forget_what_was_asked(state):
    """As versions wrote it that noted the fallback alone."""
    kept = read_state(state)
    del kept["optimizer_asked"]
    write_state(state, kept)


def class_in(out) -> str:
    with safe_open(out / "toy.safetensors", "pt") as file:
        return file.metadata()["ss_optimizer"].partition("(")[0].rpartition(".")[2]


@pytest.mark.parametrize("is_old", [False, True], ids=["", "of an earlier version"])
@pytest.mark.parametrize("name", CASES)
def test_it_goes_on_bit_equal_where_the_wished_one_can_run_now(
    tmp_path, asked, whole, name, is_old
):
    straight, without = whole(name, falls_back=True)
    with without_8_bits():
        first = leave_after(2, asked(tmp_path / "broken", name))
    if is_old:
        forget_what_was_asked(tmp_path / "broken" / "toy.run" / "state" / STATE_FILE)
    then = run(asked(tmp_path / "broken", name))
    assert losses(first) + losses(then) == losses(straight)
    assert same(lora(tmp_path / "broken"), lora(without))
    other = catalog.OPTIMIZERS[name].fallback
    assert len([text for text in told(then) if GOES_ON.format(other, name) in text]) == 1
    assert not any("cannot run here" in text for text in told(then))
    fresh, of_fresh = whole(name, falls_back=False)
    assert not any("takes the place" in text or "cannot run" in text for text in told(fresh))
    assert not same(lora(of_fresh), lora(without))
    kind = catalog.OPTIMIZERS[name].code.partition(":")[2]
    assert (class_in(of_fresh), class_in(tmp_path / "broken")) == (
        kind, catalog.OPTIMIZERS[other].code.partition(":")[2]
    )  # fmt: skip


def test_a_state_that_another_one_kept_goes_on_so_in_every_process(tmp_path, asked):
    together, alone = tmp_path / "together", tmp_path / "alone"
    with without_8_bits():
        straight = run(asked(alone, "SGDNesterov8bit", gradient_accumulation_steps=2))
        leave_after(2, asked(together, "SGDNesterov8bit", gradient_accumulation_steps=2))
    ended = train_in(2, asked(together, "SGDNesterov8bit"), together / "logs")
    assert [each.status for each in ended] == [0, 0], ended
    assert same(lora(together), lora(alone))
    assert len(losses(straight)) == 5


@pytest.mark.parametrize("name", CASES)
def test_where_only_another_one_can_run_now_it_is_refused_before_anything_is_done(
    tmp_path, asked, name
):
    leave_after(2, asked(tmp_path, name))
    state = tmp_path / "toy.run" / "state" / STATE_FILE
    before = state.read_bytes()
    with without_8_bits(), pytest.raises(OutputError) as error:
        run(asked(tmp_path, name))
    assert f"made with {name}, which cannot run here (no kernel for this device)" in str(
        error.value
    )
    assert "--begin-anew" in str(error.value)
    assert state.read_bytes() == before
    run(asked(tmp_path, name))  # where it can run, it goes on
    assert class_in(tmp_path) == catalog.OPTIMIZERS[name].code.partition(":")[2]


def test_what_a_person_chose_is_no_fallback(tmp_path, asked):
    """A state of AdamW that was asked for, and then AdamW8bit is: as before, that is refused."""
    leave_after(2, asked(tmp_path, "AdamW"))
    resume = str(tmp_path / "toy.run")
    other = asked(tmp_path, "AdamW8bit", output_name="other", resume=resume)
    with pytest.raises(OutputError, match="made with AdamW, not with AdamW8bit"):
        run(other)
