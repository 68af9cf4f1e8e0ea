"""Small runs: a tiny family, a few drawn pictures, settings that train them in a second."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from kit import planning
from kit.demo.scenes import draw_subject
from kit.events import Event, Finished, Stepped
from kit.settings import Settings
from kit.training.loop import train


def draw_images(folder: Path, *, count: int = 3) -> Path:
    """Pictures of 64 x 64 and one of 128 x 64, repeated twice, with captions."""
    concept = folder / "2_zib ball"
    concept.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        picture = draw_subject("gray", "center", random)
        if number == 0:
            picture = picture.resize((128, 64))
        picture.save(concept / f"{number}.png")
        (concept / f"{number}.txt").write_text(f"a zib ball, picture {number}")
    return folder


def toy_settings(model: Path, images: Path, out: Path, **changes) -> Settings:
    """Six batches an epoch, on the CPU, in 32 bits."""
    return Settings().replace(
        **{
            "pretrained_model_name_or_path": str(model),
            "train_data_dir": str(images),
            "output_dir": str(out),
            "output_name": "toy",
            "resolution": "128,64",
            "mixed_precision": "no",
            "save_precision": "float",
            "optimizer_type": "AdamW",
            "network_dim": 2,
            "unet_lr": 1e-2,
            "text_encoder_lr": 1e-2,
            "epoch": 2,
            "save_every_n_epochs": 0,
            "seed": 5,
        }
        | changes
    )


def run(settings: Settings, control=None) -> list[Event]:
    """Plan and train to the end."""
    told = list(train(planning.plan(settings), control))
    may_stop = control or settings.validation.validation_patience
    # As by `timeout` where the tests take longer than it allows: else any comparison might fail.
    stopped = isinstance(told[-1], Finished) and told[-1].reason != "done"
    assert may_stop or not stopped, "a signal asked this process to stop"
    return told


def losses(events: list[Event]) -> list[float]:
    """The losses of the steps, in order."""
    return [event.loss for event in events if isinstance(event, Stepped)]


def lora(out, name="toy"):
    return load_file(out / f"{name}.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def leave_after(step, settings):
    """Iterate until this step is told, then walk away, as a `break` does."""
    told = []
    for event in train(planning.plan(settings)):
        told.append(event)
        if isinstance(event, Stepped) and event.step == step:
            break
    return told
