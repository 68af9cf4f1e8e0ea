"""Rules about noise, losses and masks."""

from __future__ import annotations

from collections.abc import Iterator

from kit.settings import Folders, Noise
from kit.settings.rules.rule import Idle, idle, notice, problem

HUBER = ("huber", "smooth_l1")
BY_TYPE = {
    "Original": ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale"),
    "Multires": ("multires_noise_iterations", "multires_noise_discount"),
}


@problem
def timesteps(noise: Noise) -> Iterator[str]:
    if noise.min_timestep >= noise.max_timestep:
        yield (
            f"[noise] min_timestep: {noise.min_timestep} is not below max_timestep = "
            f"{noise.max_timestep}, so no noise level is left; lower it, or raise max_timestep"
        )


@problem
def adaptive_without_offset(noise: Noise) -> Iterator[str]:
    is_read = noise.noise_offset_type == "Original"  # else `other_noise` says that it is idle
    if is_read and noise.adaptive_noise_scale and not noise.noise_offset:
        yield (
            "[noise] adaptive_noise_scale: it changes a noise offset, and there is none; set "
            "noise_offset with noise_offset_type = Original, or adaptive_noise_scale to 0"
        )


@problem
def mask_without_source(noise: Noise, folders: Folders) -> Iterator[str]:
    if noise.masked_loss and not (noise.alpha_mask or folders.conditioning_data_dir):
        yield (
            "[noise] masked_loss: there are no masks; set conditioning_data_dir to a folder of "
            "them, or turn alpha_mask on to use the images' transparency"
        )


@notice
def opposite_weights(noise: Noise) -> Iterator[str]:
    if noise.debiased_estimation_loss and noise.min_snr_gamma:
        yield (
            f"debiased_estimation_loss and min_snr_gamma = {noise.min_snr_gamma:g} both weigh the "
            "noise levels, and the loss is multiplied by both weights; one alone is what either "
            "paper measured"
        )


@idle
def other_noise(noise: Noise) -> Iterator[Idle]:
    chosen = noise.noise_offset_type
    for kind, names in BY_TYPE.items():
        if kind != chosen:
            yield Idle(f"noise_offset_type = {chosen}, it belongs to {kind}", *names)


@notice
def multires_without_levels(noise: Noise) -> Iterator[str]:
    if noise.noise_offset_type == "Multires" and not noise.multires_noise_iterations:
        yield "noise_offset_type = Multires has no effect: multires_noise_iterations is 0"


@idle
def idle_details(noise: Noise, folders: Folders) -> Iterator[Idle]:
    if noise.loss_type not in HUBER:
        why = f"loss_type = {noise.loss_type} has no threshold"
        yield Idle(why, "huber_schedule", "huber_c", "huber_scale")
    if not noise.noise_offset:
        yield Idle("noise_offset is 0", "noise_offset_random_strength")
    if not noise.ip_noise_gamma:
        yield Idle("ip_noise_gamma is 0", "ip_noise_gamma_random_strength")
    if not noise.multires_noise_iterations:
        yield Idle("multires_noise_iterations is 0", "multires_noise_discount")
    if not noise.masked_loss:
        yield Idle("masked_loss is off", "conditioning_data_dir")
    if not (folders.reg_data_dir or folders.dataset_config):
        yield Idle("there are no regularisation images", "prior_loss_weight")
