"""Tags and trigger words in the text of captions: counted, added, removed, replaced.

A caption is all lines of its file. What holds its tags apart stays as it is: the separator with its
blanks, a keep-tokens mark, a second separator, and the inside of a wildcard, `{red, blue|green}`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kit.settings import Captions


@dataclass(frozen=True)
class TagStyle:
    """How the tags of a caption are held apart."""

    separator: str = ","
    second: str = ""  # ties tags together: secondary_separator
    mark: str = ""  # stands between kept and free tags: keep_tokens_separator
    has_wildcards: bool = False


def tag_style(captions: Captions) -> TagStyle:
    """The style that the settings describe."""
    return TagStyle(
        captions.caption_separator,
        captions.secondary_separator,
        captions.keep_tokens_separator,
        captions.enable_wildcard,
    )


def tags_of(text: str, style: TagStyle) -> list[str]:
    """The tags of all lines, in their order, each once."""
    every = (tag.strip() for line in text.splitlines() for tag in _pieces(line, style)[::2])
    return list(dict.fromkeys(tag for tag in every if tag))


def tag_counts(texts: Iterable[tuple[str, TagStyle]]) -> list[tuple[str, int]]:
    """Every tag and how many captions hold it, the most frequent first, then by name."""
    counts = Counter(tag for text, style in texts for tag in tags_of(text, style))
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0].casefold()))


def with_tag(text: str, tag: str, style: TagStyle, *, in_front: bool = False) -> str:
    """The tag in every line that lacks it, at the end or in front."""

    def added(line: str) -> str:
        if tag in tags_of(line, style):
            return line
        pair = (tag, line) if in_front else (line, tag)
        return f"{style.separator} ".join(part for part in pair if part)

    return _by_line(text, added)


def without_tags(text: str, tags: Iterable[str], style: TagStyle) -> str:
    """Every line without these tags; a separator goes with each of them, the mark never."""
    gone = frozenset(tags)
    return _by_line(text, lambda line: _without(line, style, lambda tag: tag.strip() in gone))


def with_tags_replaced(text: str, tags: Iterable[str], new: str, style: TagStyle) -> str:
    """Another tag in the place of these; a line has it only once."""
    old = frozenset(tags) - {new}

    def replaced(line: str) -> str:
        pieces, is_there = _pieces(line, style), new in tags_of(line, style)
        for at in range(0, len(pieces), 2):
            if pieces[at].strip() in old and not is_there:
                pieces[at], is_there = pieces[at].replace(pieces[at].strip(), new), True
        return _without("".join(pieces), style, lambda tag: tag.strip() in old)

    return _by_line(text, replaced)


def holds_word(text: str, word: str) -> bool:
    """As a word of its own, where the script has such; an underscore reads as a blank."""
    text, word = (part.casefold().replace("_", " ").strip() for part in (text, word))
    if word not in text:
        return False
    return not word.isascii() or bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text))


def with_trigger(text: str, word: str, style: TagStyle) -> str:
    """The trigger word in front of every line that does not hold it."""
    return _by_line(
        text,
        lambda line: line if holds_word(line, word) else with_tag(line, word, style, in_front=True),
    )


def without_trigger(text: str, word: str, style: TagStyle) -> str:
    """Every line without the word, wherever it stands by itself, also within a tag."""
    guards = (r"(?<![\w-])", r"(?![\w-])") if word.isascii() else ("", "")
    stands = re.compile(rf"\s*{guards[0]}{re.escape(word)}{guards[1]}\s*", re.IGNORECASE)

    def removed(line: str) -> str:
        line = _without(line, style, lambda tag: bool(stands.fullmatch(tag)))
        return _trimmed(stands.sub(" ", line)) if stands.search(line) else line

    return _by_line(text, removed)


def _trimmed(line: str) -> str:
    """Blanks before a comma or at the ends, where a word was taken out."""
    return re.sub(r" +(?=[,.;])", "", line).strip()


def _by_line(text: str, change: Callable[[str], str]) -> str:
    """Blank lines are none to the training, and go; a blank caption is one blank line."""
    lines = [change(line) for line in text.splitlines() or [""]]
    return "\n".join(line for line in lines if line.strip())


def _without(line: str, style: TagStyle, is_gone: Callable[[str], bool]) -> str:
    pieces = _pieces(line, style)
    at = 0
    while at < len(pieces):
        tag = pieces[at]
        if not tag.strip() or not is_gone(tag):
            at += 2
            continue
        ends = {at + 1: "".join(pieces[at + 1 : at + 2]), at - 1: pieces[at - 1] if at else ""}
        # What ties it to a neighbour goes first: "a, b;;;c" without b is "a, c".
        goes = [i for end in (style.second, style.separator) for i in ends if ends[i] == end != ""]
        if not goes:  # alone between marks, or in the line
            pieces[at] = ""
            at += 2
        elif goes[0] > at:
            lead = tag[: len(tag) - len(tag.lstrip())]
            del pieces[at : at + 2]
            pieces[at] = lead + pieces[at].lstrip()
        else:
            del pieces[at - 1 : at + 1]
            pieces[at - 2] = pieces[at - 2].rstrip() + tag[len(tag.rstrip()) :]
    return "".join(pieces)


def _pieces(line: str, style: TagStyle) -> list[str]:
    """Tag, what follows it, tag, ... tag: joined, they are the line."""
    ends = sorted(filter(None, {style.separator, style.second, style.mark}), key=len, reverse=True)
    pieces, at, begin, depth = [], 0, 0, 0
    while at < len(line):
        if style.has_wildcards:
            depth = max(0, depth + (line[at] == "{") - (line[at] == "}"))
        end = next((end for end in ends if not depth and line.startswith(end, at)), "")
        if end:
            pieces += [line[begin:at], end]
            begin = at + len(end)
        at += len(end) or 1
    return [*pieces, line[begin:]]
