"""Whole trainings of the reference, step by step: same inputs, same losses, same weights."""

import pytest
import torch

from kit.settings import Settings
from tests.support.parity import SD1, SDXL, arrays, unpack, write_tiny_sdxl
from tests.support.replay import replay, shop_for

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
    return shop_for(settings)


@pytest.mark.parametrize(("case", "changes"), [("tiny1", TINY1), ("tiny2", TINY2)])
def test_a_recorded_sd1_training_ends_with_the_same_weights(tmp_path, case, changes):
    shop = workshop(tmp_path, unpack("tiny-sd15", tmp_path) / "tiny-sd15", changes)
    check(replay(shop, case, len(SD1[case]["losses"])), SD1[case]["losses"])


def test_a_recorded_sdxl_training_ends_with_the_same_weights(tmp_path):
    shop = workshop(tmp_path, write_tiny_sdxl(tmp_path / "tiny-sdxl"), TINYXL)
    check(replay(shop, "tinyxl", len(SDXL["losses"])), SDXL["losses"])


def check(ours, losses):
    assert ours.losses == pytest.approx(losses, rel=LOSS_TOLERANCE)
    assert ours.error < UPDATE_TOLERANCE


def test_our_own_latents_of_an_image_are_the_references(tmp_path):
    shop = workshop(tmp_path, unpack("tiny-sd15", tmp_path) / "tiny-sd15", TINY1)
    inputs = arrays("tiny1_batches")
    theirs = {
        inputs[f"latents_{i}"][row].numpy().tobytes(): None for i in range(6) for row in (0, 1)
    }
    stacked = [torch.frombuffer(bytearray(raw), dtype=torch.float32) for raw in theirs]
    for latent in shop.batch_builder.latents.kept.values():
        mine = (latent.mean_Chw * shop.family.latent_scale).flatten()
        closest = min((mine - other).abs().max() for other in stacked if len(other) == len(mine))
        assert closest < 0.02  # one level of brightness more or less where the scaling rounds
