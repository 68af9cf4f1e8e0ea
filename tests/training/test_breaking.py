"""What breaks while it trains: told in words, and at most the current step is lost."""

import shutil

import pytest
import torch

from kit import planning
from kit.errors import DeviceError, KitError, OutputError
from kit.events import Finished, Noticed, Sampled, Stepped
from kit.runs.lock import NAME, at_work_in
from kit.sinks import read_events
from kit.telling import train as kit_train
from kit.training.loop import train
from kit.training.sampling import SamplePipeline
from kit.training.step import TrainingStep
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings

STEPS = 6


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    model = write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)
    images = draw_images(tmp_path_factory.mktemp("images"))
    return lambda out, **changes: toy_settings(
        model, images, out, **{"max_train_steps": STEPS, "text_encoder_lr": 0} | changes
    )


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    """A run that nothing breaks: what it told, and its file."""
    out = tmp_path_factory.mktemp("whole")
    return run(asked(out)), lora(out)


@pytest.fixture
def never_cheap(monkeypatch):
    """State is kept only where it must be."""
    monkeypatch.setattr("kit.training.checkpoint.SHARE", 0.0001)


def failing_at(monkeypatch, method, call, error, *, ever_after=False):
    """TrainingStep's method raises at this call, or also at all later ones."""
    calls, whole = 0, getattr(TrainingStep, method)

    def failing(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == call or (calls > call and ever_after):
            raise error
        return whole(self, *arguments)

    monkeypatch.setattr(TrainingStep, method, failing)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_too_little_memory_is_told_and_the_same_settings_go_on(
    tmp_path, asked, whole, monkeypatch, never_cheap, error
):
    with monkeypatch.context() as patch:
        failing_at(patch, "loss", 5, error, ever_after=True)
        with pytest.raises(DeviceError, match="not enough for step 5"):
            list(train(planning.plan(asked(tmp_path))))
    rest = run(asked(tmp_path))
    assert losses(rest) == losses(whole[0])[4:]
    assert same(whole[1], lora(tmp_path))


def test_any_other_error_keeps_the_last_whole_step_too(tmp_path, asked, monkeypatch, never_cheap):
    failing_at(monkeypatch, "loss", 4, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run(asked(tmp_path))
    assert planning.plan(asked(tmp_path)).run.from_step == 3


def test_an_optimizer_that_is_broken_off_is_not_kept(tmp_path, asked, monkeypatch, never_cheap):
    failing_at(monkeypatch, "zero_grad", 3, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(asked(tmp_path))
    assert planning.plan(asked(tmp_path)).run.from_step == 1  # kept after the first step


def test_samples_that_cannot_be_drawn_are_told_and_the_training_goes_on(
    tmp_path, asked, whole, monkeypatch
):
    changes = {"sample_prompts": "a zib ball --w 64 --h 64 --s 1", "sample_every_n_steps": 2}
    monkeypatch.setattr(SamplePipeline, "generate", out_of_memory)
    told = run(asked(tmp_path, **changes))
    assert isinstance(told[-1], Finished)
    assert told[-1].reason == "done"
    assert not any(isinstance(event, Sampled) for event in told)
    notices = [event.text for event in told if isinstance(event, Noticed)]
    assert [text for text in notices if "samples could not be drawn: out of memory" in text]
    assert same(lora(tmp_path), whole[1])


def out_of_memory(*arguments, **keywords):
    raise torch.OutOfMemoryError("out of memory\nand many numbers")


def test_a_folder_in_which_a_training_is_at_work_is_refused(tmp_path, asked):
    first = train(planning.plan(asked(tmp_path)))
    while not isinstance(next(first), Stepped):
        pass
    with pytest.raises(OutputError, match="already at work"):
        run(asked(tmp_path))
    first.close()
    assert planning.plan(asked(tmp_path)).run.from_step == 1
    run(asked(tmp_path))
    assert not (tmp_path / "toy.run" / NAME).exists()


def test_a_start_that_cannot_write_leaves_nothing(tmp_path, asked, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kit.runs.run.write_atomically", full)
    with pytest.raises(OutputError, match="No space left on device"):
        run(asked(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_free_after_an_error(tmp_path, asked, monkeypatch):
    failing_at(monkeypatch, "loss", 2, RuntimeError("a fault"))
    with pytest.raises(RuntimeError):
        run(asked(tmp_path))
    with at_work_in(tmp_path / "toy.run"):
        pass


# ------------------------------------------------------------------- a folder that is deleted


@pytest.mark.parametrize("what", ["the run's folder", "the output folder"])
def test_a_folder_that_is_deleted_meanwhile_is_made_again(
    tmp_path, asked, whole, never_cheap, what
):
    plan = planning.plan(asked(tmp_path / "b", save_every_n_steps=2))
    told, noticed = [], []
    for event in kit_train(plan):
        told.append(event)
        if isinstance(event, Noticed):
            noticed.append(event.text)
        if isinstance(event, Stepped) and event.step == 3:
            shutil.rmtree(plan.run.dir if what == "the run's folder" else plan.run.output_dir)
    (text,) = [text for text in noticed if "was deleted while the run was at work" in text]
    gone = "nothing else" if what == "the run's folder" else "1 LoRA file"
    assert f"gone is {gone}" in text
    assert losses(told) == losses(whole[0])
    assert same(whole[1], lora(tmp_path / "b"))
    kept = read_events(plan.run.dir / "events.jsonl")
    assert [type(e) for e in kept] == [type(e) for e in told]
    assert losses(kept) == losses(whole[0])
    assert (plan.run.dir / "run.toml").exists()
    assert (plan.run.output_dir / "toy-step00000004.safetensors").exists()


def test_a_run_goes_on_from_a_folder_that_was_made_again(tmp_path, asked, whole, never_cheap):
    plan, told = planning.plan(asked(tmp_path / "b")), []
    job = train(plan)
    for event in job:
        if isinstance(event, Stepped) and event.step == 2:
            shutil.rmtree(plan.run.output_dir)
        if isinstance(event, Noticed) and "made again" in event.text:
            told.append(planning.plan(asked(tmp_path / "b")).run.from_step)
            with pytest.raises(OutputError, match="already at work"), at_work_in(plan.run.dir):
                pass  # it is held as before
            break
    job.close()
    assert told == [2]  # a kill would cost no step
    assert losses(run(asked(tmp_path / "b"))) == losses(whole[0])[2:]
    assert same(whole[1], lora(tmp_path / "b"))


# ------------------------------------------------------------------- what torch would advise


class Harm:
    """A pickle of it runs something."""

    def __reduce__(self):
        return print, ("harm",)


def test_torchs_advice_to_trust_a_pickle_is_not_passed_on(tmp_path, asked, never_cheap, capsys):
    leave_after(3, asked(tmp_path / "a"))
    plan = planning.plan(asked(tmp_path / "a"))
    for path in (plan.run.dir / "state").glob("*.pt"):
        torch.save({"format": 1, "harm": Harm()}, path)
    with pytest.raises(OutputError) as told:
        list(train(plan))
    assert "weights" not in str(told.value).lower()
    assert "harm" not in capsys.readouterr().out


def test_nor_is_it_for_a_base_model_of_pickles(tmp_path, asked):
    folder = write_tiny(tmp_path / "model", "sd1", thin=True)
    for path in (folder / "unet").glob("*.safetensors"):
        path.unlink()
    torch.save({"harm": Harm()}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(KitError) as told:
        run(asked(tmp_path / "a", pretrained_model_name_or_path=str(folder)))
    assert "weights_only" not in str(told.value)
    assert "torch.load" not in str(told.value)
