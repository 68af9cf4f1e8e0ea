"""Caption processing: a caption at one use, by the settings and the use's address alone.

The order is the reference trainer's (its behaviour 3.1): prefix and suffix, dropout, wildcards,
kept tags, warm-up, shuffling, tag dropout, second separator. Where it loses something, we do not:
prefix and suffix belong to every line of a caption file, and a keep-tokens mark never reaches the
text encoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kit.randomness import random_at
from kit.settings import Captions

CHOICE = re.compile(r"\{([^{}]*)\}")
BRACE = re.compile(r"([{}])")
DEEPEST = 32  # wildcards within each other; more braces are ordinary characters
# Stand-ins for doubled braces while wildcards are read: no keyboard types them.
OPENED, CLOSED = "\ue000", "\ue001"


@dataclass(frozen=True)
class CaptionContext:
    """When a caption is used: which draw of which image, at what point of the training."""

    seed: int
    epoch: int  # from 1
    step: int  # optimizer steps done before this one
    total_steps: int
    image: int
    turn: int


def caption_at(caption: str, settings: Captions, context: CaptionContext) -> str:
    """The caption as it is read in this context; caption: all lines of its file."""
    if _is_dropped(settings, context):
        return ""
    random = random_at(context.seed, "caption", context.epoch, context.image, context.turn)
    return _composed(caption, settings, random, step=context.step, total=context.total_steps)


def cached_caption_at(caption: str, settings: Captions, context: CaptionContext) -> str:
    """The same where captions were encoded beforehand: one of `cached_captions`."""
    if _is_dropped(settings, context):
        return ""
    random = random_at(context.seed, "caption variant", context.epoch, context.image, context.turn)
    number = int(random.integers(settings.cached_caption_variants))
    return _variant(caption, settings, context.seed, context.image, number)


def cached_captions(caption: str, settings: Captions, *, seed: int, image: int) -> set[str]:
    """Every text that `cached_caption_at` may choose for this image, the dropped one too."""
    count = settings.cached_caption_variants  # those that read the same fall together below
    texts = {_variant(caption, settings, seed, image, number) for number in range(count)}
    drops = settings.caption_dropout_rate or settings.caption_dropout_every_n_epochs
    return texts | {""} if drops else texts


def effective_captions(caption: str, settings: Captions, *, seed: int, image: int) -> list[str]:
    """What the image's caption becomes in the first three epochs, for a person to look at."""
    contexts = (CaptionContext(seed, epoch, 0, 1, image, 0) for epoch in (1, 2, 3))
    return [caption_at(caption, settings, context) for context in contexts]


def varies(settings: Captions, captions: Sequence[str] = ()) -> bool:
    """A caption may read otherwise at another use, whether it is this one's or a later epoch's."""
    wild = settings.enable_wildcard and any(
        CHOICE.search(text) or "\n" in text for text in captions
    )
    return bool(
        wild
        or settings.caption_dropout_rate
        or settings.caption_dropout_every_n_epochs
        or settings.shuffle_caption
        or settings.caption_tag_dropout_rate
        or settings.token_warmup_step
    )


def _changes_tags(settings: Captions) -> bool:
    return bool(
        settings.shuffle_caption or settings.token_warmup_step or settings.caption_tag_dropout_rate
    )


def _is_dropped(settings: Captions, context: CaptionContext) -> bool:
    every = settings.caption_dropout_every_n_epochs
    if every and context.epoch % every == 0:
        return True
    address = ("caption dropout", context.epoch, context.image, context.turn)
    return bool(random_at(context.seed, *address).random() < settings.caption_dropout_rate)


def _variant(caption: str, settings: Captions, seed: int, image: int, number: int) -> str:
    random = random_at(seed, "caption variant", image, number)
    return _composed(caption, settings, random, step=1, total=1)


def _composed(
    caption: str, settings: Captions, random: np.random.Generator, *, step: int, total: int
) -> str:
    """Everything but the dropout of whole captions."""
    text = _one_line(caption, settings, random)
    if settings.enable_wildcard:
        text = _choose(text, random)
    mark, separator = settings.keep_tokens_separator, settings.caption_separator
    if _changes_tags(settings) or (mark and mark in text):
        text = _rearranged(text, settings, random, step=step, total=total)
    if settings.secondary_separator:
        text = text.replace(settings.secondary_separator, separator)
    return text


def _one_line(caption: str, settings: Captions, random: np.random.Generator) -> str:
    """A line of the caption, the first or a drawn one, with prefix and suffix."""
    lines = [line.strip() for line in caption.splitlines() if line.strip()] or [""]
    line = lines[int(random.integers(len(lines)))] if settings.enable_wildcard else lines[0]
    return _with_ends(line, settings)


def _with_ends(line: str, settings: Captions) -> str:
    return " ".join(
        part for part in (settings.caption_prefix, line, settings.caption_suffix) if part
    )


def _choose(text: str, random: np.random.Generator) -> str:
    """One of each {a|b|c}, from the inside out."""
    return _resolved(text, lambda options: options[int(random.integers(len(options)))])


def _resolved(text: str, choose: Callable[[list[str]], str]) -> str:
    """Each {a|b|c} as what is chosen of it, the first that closes first, in one walk."""
    pieces: list[str] = []
    opened: list[int] = []  # where the braces stand that wait to be closed
    for part in BRACE.split(text.replace("{{", OPENED).replace("}}", CLOSED)):
        if part == "}" and opened:
            start = opened.pop()
            chosen = choose("".join(pieces[start + 1 :]).split("|"))
            pieces[start:] = [chosen]
            continue
        if part == "{" and len(opened) < DEEPEST:
            opened.append(len(pieces))
        pieces.append(part)
    return "".join(pieces).replace(OPENED, "{").replace(CLOSED, "}")


def _rearranged(
    text: str, settings: Captions, random: np.random.Generator, *, step: int, total: int
) -> str:
    """The kept tags in place, of the others as many as the warm-up allows, shuffled and thinned."""
    head, free, tail = _parts(text, settings)
    free = free[: _allowed(len(free), settings, step=step, total=total)]
    if settings.shuffle_caption:
        free = [free[i] for i in random.permutation(len(free))]
    if rate := settings.caption_tag_dropout_rate:
        free = [tag for tag in free if random.random() >= rate]
    # As the reference since June 2026; it used to write a comma whatever stood in the file.
    return f"{settings.caption_separator} ".join([*head, *free, *tail])


def _parts(text: str, settings: Captions) -> tuple[list[str], list[str], list[str]]:
    """Kept tags in front, free ones, kept ones at the end."""
    mark, separator = settings.keep_tokens_separator, settings.caption_separator

    def tags(part: str) -> list[str]:
        return [tag.strip() for tag in part.split(separator)]

    if mark and mark in text:
        parts = [*text.split(mark, 2), "", ""][:3]
        head, free, tail = ([tag for tag in tags(part) if tag] for part in parts)
        return head, free, tail
    every = tags(text)
    return every[: settings.keep_tokens], every[settings.keep_tokens :], []


def _allowed(count: int, settings: Captions, *, step: int, total: int) -> int:
    """How many of the free tags this step may read."""
    warmup = settings.token_warmup_step
    steps = int(warmup * total) if warmup < 1 else int(warmup)
    if not warmup or step >= steps:
        return count
    least = settings.token_warmup_min
    return max(0, int(step * ((count - least) / steps)) + least)


def words_around(settings: Captions) -> str:
    """What stands before and behind every caption."""
    return _with_ends("", settings)


def fullest_captions(caption: str, settings: Captions) -> list[str]:
    """Every line that may be read, with nothing dropped and the longest choice of each wildcard."""
    lines = [line.strip() for line in caption.splitlines() if line.strip()] or [""]
    return [_fullest(line, settings) for line in (lines if settings.enable_wildcard else lines[:1])]


def _fullest(line: str, settings: Captions) -> str:
    text = _with_ends(line, settings)
    if settings.enable_wildcard and "{" in text:
        text = _resolved(text, lambda options: max(options, key=len))
    if (mark := settings.keep_tokens_separator) and mark in text:
        head, free, tail = _parts(text, settings)
        text = f"{settings.caption_separator} ".join([*head, *free, *tail])
    if settings.secondary_separator:
        text = text.replace(settings.secondary_separator, settings.caption_separator)
    return text
