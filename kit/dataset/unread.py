"""Truncated captions: what no text encoder will read, told before the training.

Captions beyond the token length, second lines, and a trigger word that no caption holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.dataset import tokens
from kit.dataset.caption_tags import holds_word
from kit.dataset.captions import fullest_captions
from kit.dataset.images import CONCEPT, TrainImage
from kit.dataset.subsets import Subset
from kit.settings import Settings

NAMED = 3
NAMED_FOR_LINES = 5
LONGEST = 225  # tokens, the most that max_token_length can be


@dataclass(frozen=True)
class Unread:
    """What is lost of one caption."""

    tokens: int  # of its longest reading
    room: int  # how many of them are read
    words: str  # that no longer fit, lower-case
    lines: int  # below the first, where only that one counts

    @property
    def is_cut(self) -> bool:
        """Some of its words are not read."""
        return self.tokens > self.room


def unread(caption: str, settings: Settings) -> Unread:
    """What is lost of a caption, all lines of its file, under these settings."""
    room = settings.memory.max_token_length
    longest = max(fullest_captions(caption, settings.captions), key=lambda t: _count(t, settings))
    count = _count(longest, settings)
    words = ""
    if count > room:
        weighted = settings.captions.weighted_captions
        words = tokens.beyond(longest, room, weighted=weighted, cut=_cut(settings))
    return Unread(count, room, words, _lines_lost(caption, settings))


def unread_notices(
    images: Sequence[TrainImage],
    ways: Sequence[Settings],
    subsets: Sequence[Subset] = (),
) -> Iterator[str]:
    """What the plan says of it. ways: the settings of each subset, or the run's alone."""
    too_long, with_lines, room = [], [], 0
    for image in images:
        settings = ways[image.subset]
        room = settings.memory.max_token_length
        if (count := _most_tokens(image.caption, settings)) > room:
            too_long.append((count, image.path.name))
        if _lines_lost(image.caption, settings):
            with_lines.append(image.path.name)
    if too_long:
        yield _told_too_long(too_long, room)
    if with_lines:
        more = len(with_lines) - NAMED_FOR_LINES
        yield (
            f"{_captions(with_lines)} more than one line, and only the first is read "
            "(enable_wildcard draws one at each use): "
            f"{', '.join(with_lines[:NAMED_FOR_LINES])}" + (f" and {more} more" if more > 0 else "")
        )
    yield from _missing_words(images, ways, subsets)


def _told_too_long(found: list[tuple[int, str]], room: int) -> str:
    longest = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:NAMED]
    named = ", ".join(f"{name} ({count} tokens)" for count, name in longest)
    remedy = "; max_token_length = 150 or 225 reads more" if room < LONGEST else ""
    which = "the longest: " if len(found) > NAMED else ""
    return (
        f"{_captions(found)} more than {room} tokens, and the rest is not read: "
        f"{which}{named}{remedy}"
    )


def _captions(found: Sequence[object]) -> str:
    return "1 caption has" if len(found) == 1 else f"{len(found)} captions have"


def _most_tokens(caption: str, settings: Settings) -> int:
    """Of its longest reading; 0 where it is so short that it needs no counting."""
    texts = fullest_captions(caption, settings.captions)
    room = settings.memory.max_token_length
    # A token is a byte or more: most captions of a large data set need not be split at all.
    texts = [text for text in texts if len(text) > room or not text.isascii()]
    return max((_count(text, settings) for text in texts), default=0)


def _count(text: str, settings: Settings) -> int:
    weighted = settings.captions.weighted_captions
    return tokens.count(text, weighted=weighted, cut=_cut(settings))


def _cut(settings: Settings) -> str:
    """SD 2.x's tokenizer takes each "!" by itself."""
    return "!" if settings.model.v2 else ""


def _lines_lost(caption: str, settings: Settings) -> int:
    if settings.captions.enable_wildcard or "\n" not in caption:
        return 0
    return max(0, sum(bool(line.strip()) for line in caption.splitlines()) - 1)


def _missing_words(
    images: Sequence[TrainImage],
    ways: Sequence[Settings],
    subsets: Sequence[Subset],
) -> Iterator[str]:
    """Trigger words that stand in no caption of their folder."""
    members: dict[tuple[Path, str], list[TrainImage]] = {}
    for image in images:
        if word := "" if image.is_reg else _trigger(image, subsets):
            members.setdefault((image.path.parent, word), []).append(image)
    for (folder, word), own in members.items():
        texts = (
            text
            for image in own
            for text in fullest_captions(image.caption, ways[image.subset].captions)
        )
        if any(holds_word(text, word) for text in texts):
            continue
        source = "class_tokens" if subsets else "the folder's name"
        yield (
            f"{word}, of {source}, stands in no caption of {folder.name}: where there are caption "
            "files that word is not read; write it into them, or set caption_prefix, if it is to "
            "call up what is learned"
        )


def _trigger(image: TrainImage, subsets: Sequence[Subset]) -> str:
    """`zxdog` of 10_zxdog dog."""
    if subsets:
        text = subsets[image.subset].class_tokens
    else:
        match = CONCEPT.match(image.folder)
        text = match[2] if match else ""
    return next(iter(text.split()), "")
