"""Rules between settings: what contradicts is refused, what has no effect is told.

Each rule is a function of all settings that yields sentences. `problems` stop the run before
anything is loaded, all at once; `notices` go into the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kit import catalog
from kit.settings import Settings, declarations
from kit.settings.rules import adapters as rules_adapters
from kit.settings.rules import captions as rules_captions
from kit.settings.rules import hub as rules_hub
from kit.settings.rules import inpainting as rules_inpainting
from kit.settings.rules import logs as rules_logs
from kit.settings.rules import machine as rules_machine
from kit.settings.rules import memory as rules_memory
from kit.settings.rules import noise as rules_noise
from kit.settings.rules import optimizer as rules_optimizer
from kit.settings.rules import parts as rules_parts
from kit.settings.rules import rates as rules_rates
from kit.settings.rules import samples as rules_samples
from kit.settings.rules import saving as rules_saving
from kit.settings.rules import schedule as rules_schedule
from kit.settings.rules.rates import encoder_learns, part_rates

Rule = Callable[[Settings], Iterator[str]]


def problems(settings: Settings) -> list[str]:
    """Everything that must be changed before training."""
    return [text for rule in PROBLEMS for text in rule(settings)]


def notices(settings: Settings) -> list[str]:
    """Everything that is accepted but has no effect, or another one than it seems."""
    return [text for rule in NOTICES for text in rule(settings)]


def caches_latents(settings: Settings) -> bool:
    """Latents are cached, in memory or on disk."""
    return settings.memory.cache_latents or settings.memory.cache_latents_to_disk


def caches_text_embeds(settings: Settings) -> bool:
    """Text-encoder outputs are cached, in memory or on disk."""
    memory = settings.memory
    return memory.cache_text_encoder_outputs or memory.cache_text_encoder_outputs_to_disk


def _nothing_learns(settings: Settings) -> Iterator[str]:
    if not any(part_rates(settings).values()):
        yield (
            "[basic] unet_lr and text_encoder_lr: both are 0, so nothing would learn; set one of "
            "them, or leave one blank to use learning_rate"
        )


def _random_crop_with_cache(settings: Settings) -> Iterator[str]:
    if settings.images.random_crop and caches_latents(settings):
        yield (
            "[images] random_crop: a cached latent is always cut at the same place; turn "
            "cache_latents and cache_latents_to_disk off, or random_crop"
        )


def _cached_text_embeds_with_learning_encoder(settings: Settings) -> Iterator[str]:
    if caches_text_embeds(settings) and encoder_learns(settings):
        yield (
            "[memory] cache_text_encoder_outputs: the outputs of an encoder that learns cannot be "
            "cached; set text_encoder_lr = 0, or turn the cache off"
        )


def _dim_from_weights_without_file(settings: Settings) -> Iterator[str]:
    if settings.network.dim_from_weights and not settings.network.network_weights:
        yield (
            "[network] dim_from_weights: there is no file to take them from; set network_weights, "
            "or turn it off"
        )


def _bucket_bounds(settings: Settings) -> Iterator[str]:
    images = settings.images
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


def _sides_in_latents(settings: Settings) -> Iterator[str]:
    images = settings.images
    step = images.bucket_reso_steps
    if images.enable_bucket and step % 8:
        yield f"[images] bucket_reso_steps: {step} is no multiple of 8; take 64, or 32 for SDXL"


def _sides_cut_in_latents(settings: Settings) -> Iterator[str]:
    images = settings.images
    if not images.enable_bucket and any(side % 8 for side in images.size):
        width, height = (side // 8 for side in images.size)
        yield (
            f"resolution = {images.resolution} is not in multiples of 8: the latents are {width} x "
            f"{height}, which stand for {8 * width} x {8 * height} pixels; write "
            f"{8 * width},{8 * height} to cut the pictures there"
        )


def _strong_alpha(settings: Settings) -> Iterator[str]:
    network = settings.network
    is_read = "network_alpha" in catalog.LORA_TYPES[network.LoRA_type].uses
    if network.network_alpha > network.network_dim and is_read and not network.dim_from_weights:
        strength = network.network_alpha / network.network_dim
        yield (
            f"network_alpha = {network.network_alpha:g} is more than network_dim = "
            f"{network.network_dim}: the LoRA is applied at {strength:g} times its weights, and "
            "learns that much faster"
        )


def _bucket_sizes_unused(settings: Settings) -> Iterator[str]:
    images = settings.images
    changed = settings.changed()
    bounds = [name for name in ("min_bucket_reso", "max_bucket_reso") if name in changed]
    if not images.enable_bucket:
        for name in (*bounds, "bucket_reso_steps"):
            if name in changed:
                yield f"{name} has no effect: enable_bucket is off"
    elif images.bucket_no_upscale:
        for name in bounds:
            yield f"{name} has no effect: bucket_no_upscale takes the images' own sizes"


def _two_lengths(settings: Settings) -> Iterator[str]:
    basic = settings.basic
    if basic.max_train_epochs:
        if basic.max_train_steps:
            yield "max_train_steps has no effect: max_train_epochs is set"
        if basic.epoch != declarations()["epoch"].default:
            yield "epoch has no effect: max_train_epochs is set"
    elif basic.max_train_steps and basic.epoch != declarations()["epoch"].default:
        yield "epoch has no effect: max_train_steps is set"


def _pickle_without_metadata(settings: Settings) -> Iterator[str]:
    if settings.saving.save_model_as != "safetensors":
        yield (
            f"save_model_as = {settings.saving.save_model_as} keeps no metadata (no comment, no "
            "settings), and some programs refuse it; safetensors is the safe choice"
        )


PROBLEMS: tuple[Rule, ...] = (
    _nothing_learns,
    _random_crop_with_cache,
    _cached_text_embeds_with_learning_encoder,
    _dim_from_weights_without_file,
    _bucket_bounds,
    _sides_in_latents,
    *rules_adapters.PROBLEMS,
    *rules_rates.PROBLEMS,
    *rules_parts.PROBLEMS,
    *rules_optimizer.PROBLEMS,
    *rules_captions.PROBLEMS,
    *rules_noise.PROBLEMS,
    *rules_inpainting.PROBLEMS,
    *rules_machine.PROBLEMS,
    *rules_memory.PROBLEMS,
    *rules_logs.PROBLEMS,
    *rules_hub.PROBLEMS,
    *rules_samples.PROBLEMS,
)
NOTICES: tuple[Rule, ...] = (
    *rules_rates.NOTICES,
    *rules_schedule.NOTICES,
    *rules_parts.NOTICES,
    *rules_optimizer.NOTICES,
    *rules_adapters.NOTICES,
    _strong_alpha,
    _sides_cut_in_latents,
    _bucket_sizes_unused,
    _two_lengths,
    _pickle_without_metadata,
    *rules_captions.NOTICES,
    *rules_noise.NOTICES,
    *rules_machine.NOTICES,
    *rules_memory.NOTICES,
    *rules_saving.NOTICES,
    *rules_logs.NOTICES,
    *rules_hub.NOTICES,
    *rules_samples.NOTICES,
)
