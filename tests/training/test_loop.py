"""Whole runs on a tiny family: exact, resumable, and honest about what they wrote."""

import os
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders import vae as vae_parts

from kit import planning
from kit.control import RunControl
from kit.errors import DeviceError, Diverged, ModelError, OutputError
from kit.events import Began, Finished, Loaded, Noticed, Sampled, Saved, Stepped
from kit.runs.record import read_record
from kit.training.loop import train
from kit.training.step import TrainingStep
from tests.support.tiny import write_tiny
from tests.support.toys import (
    draw_images,
    leave_after,
    lora,
    losses,
    run,
    same,
    toy_settings,
)

STEPS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture(scope="module")
def whole_model(tmp_path_factory):
    """All blocks of the real layout."""
    return write_tiny(tmp_path_factory.mktemp("whole"), "sd1")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def asked(model, images):
    return lambda out, **changes: toy_settings(
        model, images, out, **{"max_train_steps": STEPS} | changes
    )


@pytest.fixture(scope="module")
def asked_of_whole(whole_model, images):
    return lambda out, **changes: toy_settings(whole_model, images, out, **changes)


VARIANTS = {
    "plain": {},
    "gathered": {"gradient_accumulation_steps": 4},  # windows of 4 and 2 batches
    "dropouts": {"network_dropout": 0.3, "rank_dropout": 0.3, "module_dropout": 0.3},
    "8bit": {"optimizer_type": "AdamW8bit", "network_dim": 32},
    "adafactor": {"optimizer_type": "Adafactor"},
    "scheduled": {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": 3},
    "live": {"cache_latents": False, "random_crop": True, "flip_aug": True},
    "norms": {"scale_weight_norms": 0.05, "LoRA_type": "Kohya LoCon", "noise_offset": 0.1},
    "checkpointed": {"gradient_checkpointing": True, "network_dropout": 0.2},
    "bf16": {"mixed_precision": "bf16"},
    # State in another precision than the weights: bf16 beside fp32, and fp32 beside bf16.
    "averages in bf16": {"optimizer_type": "prodigyplus.ProdigyPlusScheduleFree"},
    "full_bf16": {"optimizer_type": "Adafactor", "mixed_precision": "bf16", "full_bf16": True},
}


BY_OTHERS = ("plain", "gathered")  # killed, and broken off in a window: below


@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=[pytest.mark.long] * (v in BY_OTHERS)) for v in VARIANTS],
)
def test_a_run_that_is_left_and_goes_on_equals_an_unbroken_one(tmp_path, asked, variant):
    changes = VARIANTS[variant]
    straight = run(asked(tmp_path / "a", **changes))
    first = leave_after(3, asked(tmp_path / "b", **changes))
    second = leave_after(6, asked(tmp_path / "b", **changes))
    third = run(asked(tmp_path / "b", **changes))
    assert losses(first) + losses(second) + losses(third) == losses(straight)
    assert len(losses(straight)) == STEPS
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


GATHERED = {"gradient_accumulation_steps": 2, "max_train_steps": 6}


@pytest.fixture(scope="module")
def gathered(asked, tmp_path_factory):
    """A run of six steps of two batches: what it told, and its file."""
    out = tmp_path_factory.mktemp("gathered")
    return run(asked(out, **GATHERED)), lora(out)


@pytest.mark.parametrize("moment", ["between two batches of a window", "while the optimizer steps"])
def test_breaking_inside_a_step_costs_that_step_alone(
    tmp_path, asked, gathered, monkeypatch, moment
):

    class PowerCut(Exception):
        pass

    calls = 0
    method = "loss" if "batches" in moment else "clip"
    whole = getattr(TrainingStep, method)
    last = 10 if "batches" in moment else 5  # the second batch of step 5; the clipping of step 5

    def failing(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == last:
            raise PowerCut
        return whole(self, *arguments)

    monkeypatch.setattr(TrainingStep, method, failing)
    # State is kept when it costs little; here after every step, so the cut costs one step.
    monkeypatch.setattr("kit.training.checkpoint.SHARE", float("inf"))
    with pytest.raises(PowerCut):
        run(asked(tmp_path, **GATHERED))
    monkeypatch.setattr(TrainingStep, method, whole)
    record = read_record(tmp_path / "toy.run")
    assert record is not None
    assert record.step == 4
    rest = run(asked(tmp_path, **GATHERED))
    assert losses(rest) == losses(gathered[0])[4:]
    assert same(gathered[1], lora(tmp_path))


def test_a_killed_process_goes_on_to_the_same_weights(tmp_path, asked):
    steps = 12  # so that it does not end before it is killed
    straight = run(asked(tmp_path / "a", max_train_steps=steps))
    settings = tmp_path / "run.toml"
    broken = asked(tmp_path / "b", max_train_steps=steps)
    settings.write_text(broken.to_toml(), encoding="utf-8")
    events = tmp_path / "told.txt"
    code = (
        "import sys; from kit import planning; from kit.settings import Settings\n"
        "from kit.training.loop import train; from kit.events import Stepped, to_line\n"
        f"for e in train(planning.plan(Settings.load({str(settings)!r}))):\n"
        f"    open({str(events)!r}, 'a').write(to_line(e) + '\\n')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while not (events.exists() and '"step": 4' in events.read_text()):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    rest = run(broken)
    assert 0 < len(losses(rest)) < steps
    assert losses(rest) == losses(straight)[-len(losses(rest)) :]
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_sampling_leaves_the_training_untouched(tmp_path, asked):
    prompts = "a zib ball --w 64 --h 64 --s 2\na dog --w 64 --h 64 --s 2 --d 4 --l 1"
    drawing = {
        "sample_prompts": prompts,
        "sample_every_n_steps": 4,
        "sample_at_first": True,
        "network_dropout": 0.2,
    }
    told = run(asked(tmp_path / "a", **drawing))
    run(asked(tmp_path / "b", network_dropout=0.2))
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    sampled = [event for event in told if isinstance(event, Sampled)]
    assert [event.step for event in sampled] == [0, 0, 4, 4, 8, 8]
    assert all(Path(event.path).stat().st_size > 100 for event in sampled)
    names = sorted(path.name for path in (tmp_path / "a" / "sample").iterdir())
    assert names[0].startswith("toy_000004_00_")
    assert names[-1].startswith("toy_e000000_01_")
    assert names[-1].endswith("_4.png")


def test_files_are_named_and_thinned_as_kohya_does(tmp_path, asked):
    one = draw_images(tmp_path / "images", count=1)  # two batches an epoch
    kept = {"save_every_n_epochs": 1, "save_last_n_epochs": 2}
    told = run(asked(tmp_path, train_data_dir=str(one), **kept))
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "toy-000002.safetensors",
        "toy-000003.safetensors",
        "toy.safetensors",
    ]
    saved = [event for event in told if isinstance(event, Saved)]
    assert [event.epoch for event in saved] == [1, 2, 3, 4]
    assert saved[2].removed == (str(tmp_path / "toy-000001.safetensors"),)


def test_step_files_of_the_last_steps_are_kept(tmp_path, asked):
    run(asked(tmp_path, save_every_n_steps=2, save_last_n_steps=4, max_train_steps=9))
    steps = sorted(path.name for path in tmp_path.glob("toy-step*.safetensors"))
    assert steps == [f"toy-step{step:08d}.safetensors" for step in (4, 6, 8)]


def test_the_same_name_again_gets_a_number_and_nothing_is_overwritten(tmp_path, asked):
    settings = asked(tmp_path, max_train_steps=1)
    run(settings)
    before = (tmp_path / "toy.safetensors").read_bytes()
    plan = planning.plan(settings)
    assert any("not overwritten" in text for text in plan.notices)
    list(train(plan))
    assert (tmp_path / "toy.safetensors").read_bytes() == before
    assert (tmp_path / "toy-2.safetensors").exists()


def test_a_request_to_stop_ends_after_the_step_with_a_file_and_state(tmp_path, asked):
    control = RunControl()
    told = []
    for event in train(planning.plan(asked(tmp_path)), control):
        told.append(event)
        if isinstance(event, Stepped) and event.step == 3:
            control.stop()
    assert isinstance(told[-1], Finished)
    assert (told[-1].step, told[-1].reason) == (3, "asked to stop")
    assert (tmp_path / "toy-step00000003.safetensors").exists()
    assert planning.plan(asked(tmp_path)).run.from_step == 3


def test_ctrl_c_is_a_request(tmp_path, asked):
    told, before = [], signal.getsignal(signal.SIGINT)
    for event in train(planning.plan(asked(tmp_path))):
        told.append(event)
        if isinstance(event, Stepped) and event.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
    assert isinstance(told[-1], Finished)
    assert told[-1].step == 2
    assert signal.getsignal(signal.SIGINT) is before  # a shell's background jobs ignore it


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_whole_step(
    tmp_path, asked, monkeypatch
):
    whole = TrainingStep.loss
    monkeypatch.setattr("kit.training.checkpoint.SHARE", float("inf"))

    def poisoned(self, batch):
        return whole(self, batch) * (float("nan") if batch.micro_step == 4 else 1)

    monkeypatch.setattr(TrainingStep, "loss", poisoned)
    with pytest.raises(Diverged, match="learning_rate"):
        run(asked(tmp_path, guardian="off"))
    assert planning.plan(asked(tmp_path)).run.from_step == 4  # the guardian makes no other run
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("encoder", {}),
        ("encoder", {"cache_latents": False}),
        ("decoder", {"sample_prompts": "a ball --w 64 --h 64 --s 1", "sample_every_n_steps": 1}),
    ],
)
def test_a_vae_that_turns_to_32_bits_is_told_once(tmp_path, asked, monkeypatch, part, changes):
    kind = getattr(vae_parts, part.capitalize())
    whole = kind.forward

    def overflowing(self, sample, *arguments):
        made = whole(self, sample, *arguments)
        return made * torch.inf if made.dtype is torch.bfloat16 else made

    monkeypatch.setattr(kind, "forward", overflowing)
    told = run(asked(tmp_path, mixed_precision="bf16", max_train_steps=2, **changes))
    texts = [event.text for event in told if isinstance(event, Noticed)]
    assert len([text for text in texts if "in bfloat16: it works in float32" in text]) == 1
    assert told[-1].reason == "done"


def test_rates_of_zero_freeze_and_blank_ones_inherit(tmp_path, asked):
    rates = {"text_encoder_lr": 0, "unet_lr": None, "learning_rate": 2e-3, "lr_warmup": 0}
    told = run(asked(tmp_path, **rates, max_train_steps=2))
    [first, *_] = [event for event in told if isinstance(event, Stepped)]
    assert first.rates == {"unet": pytest.approx(2e-3)}
    assert not [key for key in lora(tmp_path) if key.startswith("lora_te")]


def test_a_run_can_start_from_a_finished_lora(tmp_path, asked):
    run(asked(tmp_path / "a", max_train_steps=4))
    weights = str(tmp_path / "a" / "toy.safetensors")
    on = asked(
        tmp_path / "b",
        network_weights=weights,
        dim_from_weights=True,
        max_train_steps=1,
        unet_lr=1e-12,
        text_encoder_lr=1e-12,
    )
    run(on)
    before, after = lora(tmp_path / "a"), lora(tmp_path / "b")
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)


def test_cached_captions_train_the_same_weights_as_live_ones(tmp_path, asked):
    frozen = {"text_encoder_lr": 0, "max_train_steps": 4}
    run(asked(tmp_path / "a", **frozen))
    run(asked(tmp_path / "b", **frozen, cache_text_encoder_outputs=True))
    one, other = lora(tmp_path / "a"), lora(tmp_path / "b")
    assert all(torch.allclose(one[key], other[key], atol=1e-4) for key in one)


def test_a_precision_the_device_lacks_is_refused_with_the_remedy(tmp_path, asked):
    if torch.cuda.is_available():
        pytest.skip("this device has fp16")
    with pytest.raises(DeviceError, match="mixed_precision = no"):
        run(asked(tmp_path, mixed_precision="fp16"))


def test_a_blank_model_is_an_error_only_when_training(tmp_path, asked):
    settings = asked(tmp_path, pretrained_model_name_or_path="")
    assert any("pretrained_model" in text for text in planning.plan(settings).notices)
    with pytest.raises(ModelError, match="pretrained_model_name_or_path"):
        run(settings)


def test_a_lora_as_base_model_is_refused(tmp_path, asked):
    run(asked(tmp_path, max_train_steps=1))
    with pytest.raises(ModelError, match="LoRA"):
        run(asked(tmp_path, pretrained_model_name_or_path=str(tmp_path / "toy.safetensors")))


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path, asked):
    made = planning.plan(asked(tmp_path / "file" / "out"))
    (tmp_path / "file").write_text("not a folder, since the plan was made")
    with pytest.raises(OutputError, match="output_dir"):
        list(train(made))


def test_a_full_disk_while_keeping_leaves_the_older_state(tmp_path, asked, monkeypatch):
    monkeypatch.setattr("kit.training.checkpoint.SHARE", float("inf"))
    saved, count = torch.save, 0

    def full(*arguments):
        nonlocal count
        count += not isinstance(arguments[1], BytesIO)  # the beginning, which stays in memory
        if count == 4:
            raise OSError(28, "No space left on device")
        return saved(*arguments)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="step 3 is untouched"):
        run(asked(tmp_path))
    monkeypatch.setattr(torch, "save", saved)
    assert planning.plan(asked(tmp_path)).run.from_step == 3
    assert not list(tmp_path.rglob("*.part"))
    assert len(losses(run(asked(tmp_path)))) == STEPS - 3


def test_the_run_tells_device_size_and_notices(tmp_path, asked_of_whole):
    told = run(asked_of_whole(tmp_path, lr_scheduler="constant", max_train_steps=1))
    [loaded] = [event for event in told if isinstance(event, Loaded)]
    assert loaded.family == "Stable Diffusion 1.x"
    assert loaded.layers == 192 + 3 * 6  # U-Net; the tiny text encoder's three layers
    assert any("lr_warmup" in event.text for event in told if isinstance(event, Noticed))


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_other_families_train_and_go_on_alike(tmp_path, images, family):
    model = write_tiny(tmp_path / "model", family, predicts="v_prediction", thin=True)

    def settings(out):
        changes = {"max_train_steps": 4, "text_encoder_lr": 1e-3, "max_token_length": 150}
        return toy_settings(model, images, out, **changes)

    straight = run(settings(tmp_path / "a"))
    first = leave_after(2, settings(tmp_path / "b"))
    assert losses(first) + losses(run(settings(tmp_path / "b"))) == losses(straight)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_the_losses_of_the_toy_run_stay_what_they_are(tmp_path, asked_of_whole):
    """A refactor that changes these is not a refactor."""
    told = run(asked_of_whole(tmp_path, max_train_steps=4))
    assert losses(told) == pytest.approx(TOY_LOSSES, rel=1e-3)
    [began] = [event for event in told if isinstance(event, Began)]
    assert began.epochs == [event.epoch for event in told if isinstance(event, Stepped)][-1]


TOY_LOSSES = [1.17013, 1.25248, 1.20958, 1.04000]


@pytest.mark.parametrize("key", ["sd1", "sdxl"])
def test_sides_that_are_no_multiple_of_8_train_without_buckets(tmp_path, images, key):
    model = write_tiny(tmp_path / key, key, thin=True)
    changes = {"resolution": "68,84", "enable_bucket": False, "epoch": 1, "max_train_steps": 2}
    told = run(toy_settings(model, images, tmp_path / "out", **changes))
    assert any(
        "the latents are 8 x 10" in event.text for event in told if isinstance(event, Noticed)
    )
    assert [event.step for event in told if isinstance(event, Stepped)] == [1, 2]
    assert all(0 < loss < 3 for loss in losses(told))


def test_a_hole_fits_the_latents_of_such_sides(tmp_path, images):
    model = write_tiny(tmp_path / "model", "sd1", thin=True, inpainting=True)
    changes = {"train_inpainting": True, "cache_latents": False, "max_train_steps": 2}
    asked = toy_settings(
        model, images, tmp_path / "out", resolution="68,84", enable_bucket=False, **changes
    )
    assert [event.step for event in run(asked) if isinstance(event, Stepped)] == [1, 2]
