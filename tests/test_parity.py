"""Whole trainings of the reference, step by step: same inputs, same losses, same weights."""

import pytest
import torch

from kit import planning
from kit.feeding import Batch
from kit.settings import Settings
from kit.workshop import prepare
from tests.support.parity import SD1, SDXL, arrays, unpack, write_tiny_sdxl

LOSS_TOLERANCE = 1e-4  # relative
UPDATE_TOLERANCE = 1e-3  # relative L2 of the whole update

SHARED = {
    "resolution": "128,128",
    "min_bucket_reso": 64,
    "max_bucket_reso": 256,
    "bucket_no_upscale": False,
    "mixed_precision": "no",
    "save_precision": "float",
    "train_batch_size": 2,
    "optimizer_type": "AdamW",
    "learning_rate": 1e-3,
    "unet_lr": None,
    "text_encoder_lr": None,
    "lr_scheduler": "constant",
    "lr_warmup": 0,
    "network_dim": 4,
    "network_alpha": 1,
}
TINY1 = {"seed": 7, "max_train_steps": 6}
TINY2 = {
    "seed": 8,
    "max_train_steps": 4,
    "LoRA_type": "Kohya LoCon",
    "network_alpha": 4,
    "conv_dim": 2,
    "conv_alpha": 1,
    "optimizer_args": "weight_decay=0.1 betas=0.9,0.99",
    "learning_rate": 2e-3,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 1,
    "text_encoder_lr": 0,
    "min_snr_gamma": 5,
    "noise_offset": 0.1,
    "gradient_accumulation_steps": 2,
    "max_grad_norm": 0.05,
}
TINYXL = {
    "seed": 11,
    "max_train_steps": 4,
    "LoRA_type": "Kohya LoCon",
    "network_dim": 2,
    "conv_dim": 1,
    "conv_alpha": 1,
    "bucket_reso_steps": 32,
    "flip_aug": True,
    "max_token_length": 150,
    "no_half_vae": True,
}


def workshop(tmp_path, model, changes):
    images = unpack("tiny_images", tmp_path) / "tiny"
    settings = Settings().replace(
        **SHARED
        | changes
        | {
            "pretrained_model_name_or_path": str(model),
            "train_data_dir": str(images),
            "output_dir": str(tmp_path / "out"),
        }
    )
    ready = prepare(planning.plan(settings))
    while True:
        try:
            next(ready)
        except StopIteration as end:
            return end.value


def recorded(inputs, number, *, sdxl):
    tokens = [inputs[f"input_ids_{number}"]]
    if sdxl:
        tokens.append(inputs[f"input_ids2_{number}"])
    return Batch(
        latents_BChw=inputs[f"latents_{number}"],
        noise_BChw=inputs[f"noise_{number}"],
        t_B=inputs[f"timesteps_{number}"],
        weight_B=torch.ones(len(inputs[f"timesteps_{number}"])),  # no regularisation images
        tokens=tuple(tokens),
        words=None,
        sizes_B6=inputs[f"time_ids_{number}"] if sdxl else None,
        number=number,
    )


def replay(shop, case, losses, *, gathered=1, sdxl=False):
    """Feed the recorded batches; returns our losses and the relative error of the update."""
    lora, inputs = arrays(f"{case}_lora"), arrays(f"{case}_batches")
    start = {key.removeprefix("init/"): value for key, value in lora.items() if "init/" in key}
    own = shop.network.tensors()
    assert {key: tuple(value.shape) for key, value in own.items()} == {
        key: tuple(value.shape) for key, value in start.items()
    }
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(start[key])  # the same memory as the network's own weights
    ours = []
    for first in range(0, len(losses), gathered):
        window = range(first, min(first + gathered, len(losses)))
        got, _ = shop.learn((recorded(inputs, i, sdxl=sdxl) for i in window), count=len(window))
        ours += got
    error = size = 0.0
    for key, value in shop.network.tensors().items():
        if key.endswith(".alpha"):
            continue
        stored = lora.get(f"final/{key}")
        update = (lora[f"delta/{key}"] if stored is None else stored - start[key]).double()
        error += (value.double() - start[key].double() - update).square().sum().item()
        size += update.square().sum().item()
    return ours, (error / size) ** 0.5


@pytest.mark.parametrize(("case", "changes"), [("tiny1", TINY1), ("tiny2", TINY2)])
def test_a_recorded_sd1_training_ends_with_the_same_weights(tmp_path, case, changes):
    shop = workshop(tmp_path, unpack("tiny-sd15", tmp_path) / "tiny-sd15", changes)
    losses = SD1[case]["losses"]
    gathered = changes.get("gradient_accumulation_steps", 1)
    ours, error = replay(shop, case, losses, gathered=gathered)
    assert ours == pytest.approx(losses, rel=LOSS_TOLERANCE)
    assert error < UPDATE_TOLERANCE


def test_a_recorded_sdxl_training_ends_with_the_same_weights(tmp_path):
    shop = workshop(tmp_path, write_tiny_sdxl(tmp_path / "tiny-sdxl"), TINYXL)
    ours, error = replay(shop, "tinyxl", SDXL["losses"], sdxl=True)
    assert ours == pytest.approx(SDXL["losses"], rel=LOSS_TOLERANCE)
    assert error < UPDATE_TOLERANCE


def test_our_own_latents_of_an_image_are_the_references(tmp_path):
    shop = workshop(tmp_path, unpack("tiny-sd15", tmp_path) / "tiny-sd15", TINY1)
    inputs = arrays("tiny1_batches")
    theirs = {
        inputs[f"latents_{i}"][row].numpy().tobytes(): None for i in range(6) for row in (0, 1)
    }
    stacked = [torch.frombuffer(bytearray(raw), dtype=torch.float32) for raw in theirs]
    for latent in shop.feed.latents.kept.values():
        mine = (latent.mean_Chw * shop.family.latent_scale).flatten()
        closest = min((mine - other).abs().max() for other in stacked if len(other) == len(mine))
        assert closest < 0.02  # one level of brightness more or less where the scaling rounds
