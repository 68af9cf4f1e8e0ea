"""Rules about captions."""

from __future__ import annotations

from collections.abc import Iterator

from kit.settings import Captions, Folders, Memory
from kit.settings.effective import caches_text_embeds
from kit.settings.rules.rule import (
    Idle,
    RunLength,
    idle,
    notice,
    problem,
    turns_that_never_come,
)


@problem
def separator(captions: Captions) -> Iterator[str]:
    if not captions.caption_separator:
        yield (
            "[captions] caption_separator: it is blank, so captions have no tags; write what "
            "stands between them, usually a comma"
        )


@problem
def warmup_with_cache(captions: Captions, memory: Memory) -> Iterator[str]:
    if caches_text_embeds(memory) and captions.token_warmup_step:
        yield (
            "[captions] token_warmup_step: a cached caption cannot grow from step to step; set it "
            "to 0, or turn cache_text_encoder_outputs off"
        )


@idle
def idle_captions(captions: Captions, memory: Memory) -> Iterator[Idle]:
    rearranges = (
        captions.shuffle_caption or captions.caption_tag_dropout_rate or captions.token_warmup_step
    )
    if not rearranges:
        yield Idle("nothing shuffles, drops or warms up the tags", "keep_tokens")
    if not captions.token_warmup_step:
        yield Idle("token_warmup_step is 0", "token_warmup_min")
    if not (caches_text_embeds(memory) and rearranges):
        why = "it counts where captions are cached and their tags change"
        yield Idle(why, "cached_caption_variants")


@notice
def two_ways_to_keep(captions: Captions) -> Iterator[str]:
    if captions.keep_tokens and captions.keep_tokens_separator:
        yield "keep_tokens has no effect on captions that hold keep_tokens_separator"


@idle
def separator_of_nothing(captions: Captions, folders: Folders) -> Iterator[Idle]:
    """Captions are cut at it only where their tags move, and joined by it in a data set's file."""
    divides = (
        captions.shuffle_caption
        or captions.caption_tag_dropout_rate
        or captions.token_warmup_step
        or captions.secondary_separator
        or captions.keep_tokens_separator
        or folders.dataset_config
    )
    if not divides:
        yield Idle("nothing shuffles, drops or warms up the tags", "caption_separator")


@notice
def dropped_epochs(captions: Captions, length: RunLength) -> Iterator[str]:
    every = captions.caption_dropout_every_n_epochs
    if every == 1:
        yield (
            "caption_dropout_every_n_epochs = 1: every epoch drops its captions, so the LoRA "
            "learns no word at all; 2 drops those of every second epoch, 0 none"
        )
    yield from turns_that_never_come(length, {"caption_dropout_every_n_epochs": every}, {})
