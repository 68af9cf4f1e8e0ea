"""Rules about precision and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kit import catalog

if TYPE_CHECKING:
    from kit.settings import Settings


def base_precision(settings: Settings) -> str:
    """The row of the catalog that says how the base is kept."""
    return "fp8" if settings.memory.fp8_base else settings.memory.base_precision


def full_precision(settings: Settings) -> str:
    """The mixed precision that the LoRA's own weights share; empty where they are float32."""
    memory = settings.memory
    return "fp16" if memory.full_fp16 else "bf16" if memory.full_bf16 else ""


def keeps_attention_matrices(settings: Settings) -> bool:
    """Attention is computed step by step, without a kernel that avoids its matrices."""
    return settings.memory.cross_attention == "none" and not settings.memory.mem_eff_attn


def _full_needs_mixed(settings: Settings) -> Iterator[str]:
    memory = settings.memory
    for precision, is_on in (("fp16", memory.full_fp16), ("bf16", memory.full_bf16)):
        if is_on and memory.mixed_precision != precision:
            yield (
                f"[memory] full_{precision}: it goes with mixed_precision = {precision} only, and "
                f"that is {memory.mixed_precision}; set it, or turn full_{precision} off"
            )


def _two_base_precisions(settings: Settings) -> Iterator[str]:
    memory = settings.memory
    if memory.fp8_base and catalog.BASE_PRECISIONS[memory.base_precision].code:
        yield (
            f"[memory] fp8_base: base_precision = {memory.base_precision} says otherwise; keep "
            "one of them"
        )


def _cost_of_base_precision(settings: Settings) -> Iterator[str]:
    row = catalog.BASE_PRECISIONS[base_precision(settings)]
    if row.code:
        yield f"{row.setting}: {row.costs}"
    elif settings.memory.compress_text_encoders:
        yield "compress_text_encoders has no effect: base_precision is as_mixed_precision"


def _attention(settings: Settings) -> Iterator[str]:
    memory = settings.memory
    if memory.cross_attention == "xformers":
        yield (
            "cross_attention = xformers: PyTorch's own memory-efficient attention (sdpa) is used, "
            "which needs no further package"
        )
    if memory.mem_eff_attn and memory.cross_attention != "none":
        yield (
            f"mem_eff_attn has no effect: cross_attention = {memory.cross_attention} is memory "
            "efficient"
        )


def _idle_memory(settings: Settings) -> Iterator[str]:
    memory = settings.memory
    on_disk = memory.cache_latents_to_disk or memory.cache_text_encoder_outputs_to_disk
    if memory.skip_cache_check and not on_disk:
        yield "skip_cache_check has no effect: nothing is cached on disk"
    if memory.highvram and not (on_disk or memory.cache_latents or _caches_text_embeds(settings)):
        yield "highvram has no effect: nothing is cached, so VAE and text encoders stay anyway"


def _caches_text_embeds(settings: Settings) -> bool:
    memory = settings.memory
    return memory.cache_text_encoder_outputs or memory.cache_text_encoder_outputs_to_disk


PROBLEMS = (_full_needs_mixed, _two_base_precisions)
NOTICES = (_cost_of_base_precision, _attention, _idle_memory)
