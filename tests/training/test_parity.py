"""Whole trainings of the reference, step by step: same inputs, same losses, same weights."""

import pytest
import torch

from kit.bench.steps import make_step
from kit.catalog.lr_schedules import ScheduleParams
from kit.settings import NetworkSettings, Noise
from kit.training.caches import run_latents
from tests.support.parity import SD1, SDXL, arrays, unpack, write_tiny_sdxl
from tests.support.parts import load_tiny, outcome, plan_for
from tests.support.replay import replay

LOSS_TOLERANCE = 1e-4  # relative
UPDATE_TOLERANCE = 1e-3  # relative L2 of the whole update


def lora(family, case, count, network, rates, **changes):
    gathered = changes.pop("gathered", 1)
    step, attached = make_step(family, NetworkSettings(**network), rates, **changes)
    try:
        return replay(step, attached, case, count, gathered=gathered)
    finally:
        attached.detach_hooks()


def test_a_recorded_sd1_training_ends_with_the_same_weights(tmp_path):
    family, losses = sd1(tmp_path), SD1["tiny1"]["losses"]
    network = {"network_dim": 4, "network_alpha": 1}
    check(lora(family, "tiny1", len(losses), network, {"unet": 1e-3, "te": 1e-3}), losses)


def test_a_recorded_sd1_training_of_the_unet_alone_ends_with_the_same_weights(tmp_path):
    """LoCon, min-SNR, two batches gathered, a clipped gradient, a cosine after a warm-up."""
    family, losses = sd1(tmp_path), SD1["tiny2"]["losses"]
    network = {"LoRA_type": "Kohya LoCon", "network_dim": 4, "network_alpha": 4}
    ours = lora(
        family,
        "tiny2",
        len(losses),
        network | {"conv_dim": 2, "conv_alpha": 1},
        {"unet": 2e-3, "te": 0},
        noise=Noise(min_snr_gamma=5),
        optimizer_args="weight_decay=0.1 betas=0.9,0.99",
        lr_scheduler="cosine",
        schedule_params=ScheduleParams(4, warmup=1),
        max_grad_norm=0.05,
        gathered=2,
    )
    check(ours, losses)


def test_a_recorded_sdxl_training_ends_with_the_same_weights(tmp_path):
    family, losses = load_tiny(write_tiny_sdxl(tmp_path / "tiny-sdxl")), SDXL["losses"]
    network = {"LoRA_type": "Kohya LoCon", "network_dim": 2, "network_alpha": 1}
    rates = {"unet": 1e-3, "te1": 1e-3, "te2": 1e-3}
    ours = lora(family, "tinyxl", len(losses), network | {"conv_dim": 1, "conv_alpha": 1}, rates)
    check(ours, losses)


def sd1(tmp_path):
    return load_tiny(unpack("tiny-sd15", tmp_path) / "tiny-sd15")


def check(ours, losses):
    assert ours.losses == pytest.approx(losses, rel=LOSS_TOLERANCE)
    assert ours.error < UPDATE_TOLERANCE


def test_our_own_latents_of_an_image_are_the_references(tmp_path):
    images = unpack("tiny_images", tmp_path) / "tiny"
    plan = plan_for(images, min_bucket_reso=64, max_bucket_reso=256, bucket_no_upscale=False)
    family = sd1(tmp_path)
    latents, _ = outcome(run_latents(plan, family))
    inputs = arrays("tiny1_batches")
    theirs = {
        inputs[f"latents_{i}"][row].numpy().tobytes(): None for i in range(6) for row in (0, 1)
    }
    stacked = [torch.frombuffer(bytearray(raw), dtype=torch.float32) for raw in theirs]
    for latent in latents.kept.values():
        mine = (latent.mean_Chw * family.latent_scale).flatten()
        closest = min((mine - other).abs().max() for other in stacked if len(other) == len(mine))
        assert closest < 0.02  # one level of brightness more or less where the scaling rounds
