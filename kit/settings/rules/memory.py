"""Rules about precision and memory."""

from __future__ import annotations

from collections.abc import Iterator

from kit import catalog
from kit.settings import Basic, Memory, Rates
from kit.settings.effective import (
    base_precision,
    caches_latents,
    caches_text_embeds,
    encoder_learns,
)
from kit.settings.rules.rule import Idle, idle, notice, problem


@problem
def cached_text_embeds_with_learning_encoder(
    memory: Memory, basic: Basic, rates: Rates
) -> Iterator[str]:
    if caches_text_embeds(memory) and encoder_learns(basic, rates):
        yield (
            "[memory] cache_text_encoder_outputs: the outputs of an encoder that learns cannot be "
            "cached; set text_encoder_lr = 0, or turn the cache off"
        )


@problem
def full_needs_mixed(memory: Memory) -> Iterator[str]:
    for precision, is_on in (("fp16", memory.full_fp16), ("bf16", memory.full_bf16)):
        if is_on and memory.mixed_precision != precision:
            yield (
                f"[memory] full_{precision}: it goes with mixed_precision = {precision} only, and "
                f"that is {memory.mixed_precision}; set it, or turn full_{precision} off"
            )


@problem
def two_base_precisions(memory: Memory) -> Iterator[str]:
    if memory.fp8_base and catalog.BASE_PRECISIONS[memory.base_precision].code:
        yield (
            f"[memory] fp8_base: base_precision = {memory.base_precision} says otherwise; keep "
            "one of them"
        )


@notice
def cost_of_base_precision(memory: Memory) -> Iterator[str]:
    row = catalog.BASE_PRECISIONS[base_precision(memory)]
    if row.code:
        yield f"{row.setting}: {row.costs}"


@idle
def nothing_to_compress(memory: Memory) -> Iterator[Idle]:
    row = catalog.BASE_PRECISIONS[base_precision(memory)]
    if not row.code:
        yield Idle("base_precision = as_mixed_precision", "compress_text_encoders")


@notice
def attention(memory: Memory) -> Iterator[str]:
    if memory.cross_attention == "xformers":
        yield (
            "cross_attention = xformers: PyTorch's own memory-efficient attention (sdpa) is used, "
            "which needs no further package"
        )


@idle
def attention_that_saves(memory: Memory) -> Iterator[Idle]:
    if memory.cross_attention != "none":
        yield Idle(
            f"cross_attention = {memory.cross_attention} is memory efficient", "mem_eff_attn"
        )


@idle
def idle_memory(memory: Memory) -> Iterator[Idle]:
    if memory.mixed_precision == "no":
        yield Idle("mixed_precision = no computes in 32 bits anyway", "no_half_vae")
    on_disk = memory.cache_latents_to_disk or memory.cache_text_encoder_outputs_to_disk
    if not on_disk:
        yield Idle("nothing is cached on disk", "skip_cache_check")
    if not (caches_latents(memory) or caches_text_embeds(memory)):
        yield Idle("nothing is cached, so VAE and text encoders stay anyway", "highvram")
    if not caches_latents(memory):
        yield Idle("latents are not cached", "vae_batch_size")
