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


PROBLEMS = (_full_needs_mixed, _two_base_precisions)
NOTICES = (_cost_of_base_precision,)
