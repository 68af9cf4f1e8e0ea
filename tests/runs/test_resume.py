"""State folders of the user's own: when they are kept, and what goes on from them."""

import json
import shutil

import pytest
import torch

from kit import planning
from kit.control import RunControl
from kit.errors import OutputError, SettingsError
from kit.events import Loaded, Noticed, StateKept
from kit.training.loop import train
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def done(model, images, tmp_path_factory):
    """A run of three epochs of six steps, with a state of each."""
    out = tmp_path_factory.mktemp("done")
    changes = {"save_state": True, "save_every_n_epochs": 1, "epoch": 3}
    return out, run(toy_settings(model, images, out, **changes))


def folders(out):
    return sorted(path.name for path in out.iterdir() if path.name.endswith("-state"))


def test_a_state_lies_beside_every_file(done):
    out, events = done
    expected = ["toy-000001-state", "toy-000002-state", "toy-state"]
    assert folders(out) == expected
    kept = [event for event in events if isinstance(event, StateKept)]
    assert [(event.step, event.epoch) for event in kept] == [(6, 1), (12, 2), (18, 3)]
    assert [event.path for event in kept] == [str(out / name) for name in expected]


@pytest.mark.parametrize("folder", ["toy-000001-state", "toy-000002-state"])
def test_another_run_goes_on_from_it_bit_for_bit(model, images, tmp_path, done, folder):
    out, events = done
    settings = toy_settings(model, images, tmp_path, epoch=3, resume=str(out / folder), seed=0)
    plan = planning.plan(settings)
    step = 6 * int(folder[9])
    assert (plan.from_step, plan.seed) == (step, 5)
    assert f"goes on at step {step} of 18" in str(plan)
    again = list(train(plan))
    assert [event.from_step for event in again if isinstance(event, Loaded)] == [step]
    assert losses(again) == losses(events)[step:]
    assert same(lora(tmp_path), lora(out))


def test_what_went_on_and_was_broken_off_goes_on_again(model, images, tmp_path, done):
    out, events = done
    settings = toy_settings(model, images, tmp_path, epoch=3, resume=str(out / "toy-000001-state"))
    first = leave_after(9, settings)
    assert planning.plan(settings).from_step == 9
    assert losses(first) + losses(run(settings)) == losses(events)[6:]


def test_more_epochs_go_on_from_the_end(model, images, tmp_path, done):
    out, _ = done
    resume = {"resume": str(out / "toy-state")}
    with pytest.raises(SettingsError, match="resume: the state is of step 18"):
        planning.plan(toy_settings(model, images, tmp_path, epoch=3, **resume))
    events = run(toy_settings(model, images, tmp_path, epoch=4, **resume))
    assert len(losses(events)) == 6


def test_the_folder_of_an_unfinished_run_will_do(model, images, tmp_path, done):
    straight = losses(done[1])
    first = leave_after(4, toy_settings(model, images, tmp_path / "a", epoch=3))
    for number, folder in enumerate(["toy.run", "toy.run/state"]):
        out = tmp_path / str(number)
        settings = toy_settings(model, images, out, epoch=3, resume=str(tmp_path / "a" / folder))
        assert losses(first) + losses(run(settings)) == straight


def test_only_the_last_states_are_kept(model, images, tmp_path):
    changes = {"save_state": True, "save_every_n_steps": 1, "max_train_steps": 5}
    run(toy_settings(model, images, tmp_path / "a", **changes, save_last_n_steps_state=1))
    newest = ["toy-step00000003-state", "toy-step00000004-state"]
    assert folders(tmp_path / "a") == ["toy-state", *newest]
    run(toy_settings(model, images, tmp_path / "b", **changes, save_last_n_steps=1))
    assert folders(tmp_path / "b") == folders(tmp_path / "a")


def test_a_run_that_is_asked_to_stop_keeps_one(model, images, tmp_path):
    control, settings = RunControl(), toy_settings(model, images, tmp_path, save_state=True)
    for event in train(planning.plan(settings), control):
        if losses([event]):
            control.stop()
    assert folders(tmp_path) == ["toy-step00000001-state"]


def test_other_rates_are_those_of_the_state_and_told(model, images, tmp_path, done):
    resume = {"resume": str(done[0] / "toy-000001-state"), "unet_lr": 1e-5}
    events = leave_after(7, toy_settings(model, images, tmp_path, epoch=3, **resume))
    told = [event.text for event in events if isinstance(event, Noticed)]
    assert "the learning rates are those of the state: 0.01, 0.01" in told
    assert losses(events) == losses(done[1])[6:7]


@pytest.mark.parametrize("changes", [{"network_dim": 4}, {"optimizer_type": "Adafactor"}])
def test_a_state_of_another_network_or_optimizer_is_refused(model, images, tmp_path, done, changes):
    resume = {"resume": str(done[0] / "toy-000001-state")}
    settings = toy_settings(model, images, tmp_path, epoch=3, **resume, **changes)
    with pytest.raises(OutputError, match=r"does not fit[\s\S]*leave resume blank"):
        run(settings)
    assert not (tmp_path / "toy.run").exists()


def test_what_is_no_state_is_refused_with_the_reason(model, images, tmp_path, done):
    def refused(folder):
        with pytest.raises(SettingsError) as error:
            planning.plan(toy_settings(model, images, tmp_path / "out", resume=str(folder)))
        return str(error.value)

    assert "there is no folder" in refused(tmp_path / "nowhere")
    assert "holds no state" in refused(tmp_path)
    assert "is finished" in refused(done[0] / "toy.run")
    (tmp_path / "train_state.json").write_text(json.dumps({"current_epoch": 1}))
    assert "sd-scripts" in refused(tmp_path)


def test_a_damaged_state_is_refused(model, images, tmp_path, done):
    copy = shutil.copytree(done[0] / "toy-000001-state", tmp_path / "copy")
    (copy / "state.pt").write_bytes(b"nothing")
    with pytest.raises(OutputError, match="cannot be read"):
        run(toy_settings(model, images, tmp_path / "out", epoch=3, resume=str(copy)))


def test_a_name_whose_state_lies_there_is_not_taken_again(model, images, tmp_path, done):
    shutil.copytree(done[0] / "toy-state", tmp_path / "toy-state")
    assert planning.plan(toy_settings(model, images, tmp_path)).run.name == "toy-2"


def test_a_state_holds_tensors_and_numbers_only(done):
    torch.load(done[0] / "toy-state" / "state.pt", weights_only=True)
