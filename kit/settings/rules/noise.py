"""Rules about noise, losses and masks."""

from __future__ import annotations

from collections.abc import Iterator

from kit.settings import Folders, Noise
from kit.settings.rules.rule import Changed, notice, problem

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


@notice
def other_noise(noise: Noise, changed: Changed) -> Iterator[str]:
    chosen = noise.noise_offset_type
    for kind, names in BY_TYPE.items():
        for name in names:
            if kind != chosen and name in changed:
                yield f"{name} has no effect: noise_offset_type = {chosen}, it belongs to {kind}"


@notice
def multires_without_levels(noise: Noise) -> Iterator[str]:
    if noise.noise_offset_type == "Multires" and not noise.multires_noise_iterations:
        yield "noise_offset_type = Multires has no effect: multires_noise_iterations is 0"


@notice
def idle_details(noise: Noise, folders: Folders, changed: Changed) -> Iterator[str]:
    if noise.loss_type not in HUBER:
        for name in ("huber_schedule", "huber_c", "huber_scale"):
            if name in changed:
                yield f"{name} has no effect: loss_type = {noise.loss_type} has no threshold"
    if noise.noise_offset_random_strength and not noise.noise_offset:
        yield "noise_offset_random_strength has no effect: noise_offset is 0"
    if noise.ip_noise_gamma_random_strength and not noise.ip_noise_gamma:
        yield "ip_noise_gamma_random_strength has no effect: ip_noise_gamma is 0"
    if "multires_noise_discount" in changed and not noise.multires_noise_iterations:
        yield "multires_noise_discount has no effect: multires_noise_iterations is 0"
    if folders.conditioning_data_dir and not noise.masked_loss:
        yield "conditioning_data_dir has no effect: masked_loss is off"
    if "prior_loss_weight" in changed and not (folders.reg_data_dir or folders.dataset_config):
        yield "prior_loss_weight has no effect: there are no regularisation images"
