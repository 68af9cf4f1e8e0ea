"""Rules about captions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.settings import Settings


def _separator(settings: Settings) -> Iterator[str]:
    if not settings.captions.caption_separator:
        yield (
            "[captions] caption_separator: it is blank, so captions have no tags; write what "
            "stands between them, usually a comma"
        )


def _warmup_with_cache(settings: Settings) -> Iterator[str]:
    memory = settings.memory
    cached = memory.cache_text_encoder_outputs or memory.cache_text_encoder_outputs_to_disk
    if cached and settings.captions.token_warmup_step:
        yield (
            "[captions] token_warmup_step: a cached caption cannot grow from step to step; set it "
            "to 0, or turn cache_text_encoder_outputs off"
        )


def _idle(settings: Settings) -> Iterator[str]:
    captions, changed = settings.captions, settings.changed()
    rearranges = (
        captions.shuffle_caption or captions.caption_tag_dropout_rate or captions.token_warmup_step
    )
    if captions.keep_tokens and not rearranges:
        yield "keep_tokens has no effect: nothing shuffles, drops or warms up the tags"
    if captions.keep_tokens and captions.keep_tokens_separator:
        yield "keep_tokens has no effect on captions that hold keep_tokens_separator"
    if "token_warmup_min" in changed and not captions.token_warmup_step:
        yield "token_warmup_min has no effect: token_warmup_step is 0"
    memory = settings.memory
    cached = memory.cache_text_encoder_outputs or memory.cache_text_encoder_outputs_to_disk
    if "cached_caption_variants" in changed and not (cached and rearranges):
        yield (
            "cached_caption_variants has no effect: it counts where captions are cached and their "
            "tags change"
        )


PROBLEMS = (_separator, _warmup_with_cache)
NOTICES = (_idle,)
