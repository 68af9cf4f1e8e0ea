"""Rules about the images' sizes and what changes them."""

from __future__ import annotations

from collections.abc import Iterator

from kit.settings import Images, Memory
from kit.settings.effective import caches_latents
from kit.settings.rules.rule import Idle, idle, notice, problem


@problem
def random_crop_with_cache(images: Images, memory: Memory) -> Iterator[str]:
    if images.random_crop and caches_latents(memory):
        yield (
            "[images] random_crop: a cached latent is always cut at the same place; turn "
            "cache_latents and cache_latents_to_disk off, or random_crop"
        )


@problem
def colour_with_cache(images: Images, memory: Memory) -> Iterator[str]:
    if images.color_aug and caches_latents(memory):
        yield (
            "[images] color_aug: a cached latent always has the same colours; turn cache_latents "
            "and cache_latents_to_disk off, or color_aug"
        )


@problem
def bucket_bounds(images: Images) -> Iterator[str]:
    if not images.enable_bucket or images.bucket_no_upscale:
        return
    step = images.bucket_reso_steps
    low = max(step, images.min_bucket_reso // step * step)
    high = -(-images.max_bucket_reso // step) * step
    width, height = images.size
    if min(width, height) < low:
        yield (
            f"[images] min_bucket_reso: {low} is more than the shorter side of resolution = "
            f"{images.resolution}; lower it"
        )
    if max(width, height) > high:
        yield (
            f"[images] max_bucket_reso: {high} is less than the longer side of resolution = "
            f"{images.resolution}; raise it"
        )


@problem
def sides_in_latents(images: Images) -> Iterator[str]:
    step = images.bucket_reso_steps
    if images.enable_bucket and step % 8:
        yield f"[images] bucket_reso_steps: {step} is no multiple of 8; take 64, or 32 for SDXL"


@notice
def sides_cut_in_latents(images: Images) -> Iterator[str]:
    if not images.enable_bucket and any(side % 8 for side in images.size):
        width, height = (side // 8 for side in images.size)
        yield (
            f"resolution = {images.resolution} is not in multiples of 8: the latents are {width} x "
            f"{height}, which stand for {8 * width} x {8 * height} pixels; write "
            f"{8 * width},{8 * height} to cut the pictures there"
        )


@idle
def bucket_sizes_unused(images: Images) -> Iterator[Idle]:
    bounds = ("min_bucket_reso", "max_bucket_reso")
    if not images.enable_bucket:
        yield Idle("enable_bucket is off", *bounds, "bucket_reso_steps", "bucket_no_upscale")
    elif images.bucket_no_upscale:
        yield Idle("bucket_no_upscale takes the images' own sizes", *bounds)
