"""Captions to CLIP's tokens, without torch: the families read them, the plan counts them.

Byte-pair encoding (Sennrich et al. 2016) over bytes (Radford et al. 2019), with CLIP's merges.
The merges are read when the first caption is split: `import kit` and an empty form need none.
https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py (behaviour).
"""

from __future__ import annotations

import gzip
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

from kit.dataset.prompt_weighting import parse_emphasis

CONTENT = 75  # tokens of a caption that CLIP reads at once
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_MERGES = Path(__file__).with_name("clip_merges.txt.gz")


def merges() -> list[str]:
    """CLIP's merges, the first one first: `i n`, `t h`, ..."""
    return gzip.decompress(_MERGES.read_bytes()).decode("utf-8").split("\n")[:-1]


@cache
def vocabulary() -> dict[str, int]:
    """Byte stand-ins, the same at a word's end, one token per merge, and the two marks."""
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [merge.replace(" ", "") for merge in merges()]
    return {token: number for number, token in enumerate([*tokens, START, END])}


def _byte_letters() -> list[str]:
    """Printable stand-ins for the 256 bytes (Radford et al. 2019), in CLIP's order."""
    printable = _printable()
    return [*map(chr, printable), *(chr(256 + n) for n in range(256 - len(printable)))]


def _printable() -> list[int]:
    return [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]


@cache
def _letter_of_byte() -> dict[int, str]:
    printable = _printable()
    others = [byte for byte in range(256) if byte not in printable]
    return dict(zip([*printable, *others], _byte_letters(), strict=True))


@cache
def _ranks() -> dict[tuple[str, str], int]:
    pairs = (merge.split(" ") for merge in merges())
    return {(first, second): rank for rank, (first, second) in enumerate(pairs)}


@cache
def _find_words() -> Callable[[str], list[str]]:
    import regex  # here, as it takes 35 ms; `re` has no classes of letters and of numbers

    found: Callable[[str], list[str]] = regex.compile(WORDS).findall
    return found


def mended(text: str) -> str:
    """Wrongly decoded letters put right and curly quotes straightened, as CLIP was trained."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return text  # ftfy changes none of these, and takes 20 times as long as the rest
    import ftfy  # here, as it takes 50 ms

    fixed: str = ftfy.fix_text(text)
    return fixed


@lru_cache(maxsize=100_000)
def _word_ids(word: str) -> tuple[int, ...]:
    """The tokens of one word: the pair that was merged first in CLIP's making joins first."""
    letters, ranks = _letter_of_byte(), _ranks()
    parts = [letters[byte] for byte in word.encode("utf-8")]
    parts[-1] += "</w>"
    while len(parts) > 1:
        pairs = list(pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        parts = _with_pair_joined(parts, best)
    known = vocabulary()
    return tuple(known[part] for part in parts)


def _with_pair_joined(parts: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """Every occurrence joined, from the left; what was just joined does not join again."""
    joined: list[str] = []
    at = 0
    while at < len(parts):
        is_pair = tuple(parts[at : at + 2]) == pair
        joined.append("".join(pair) if is_pair else parts[at])
        at += 2 if is_pair else 1
    return joined


def encode(text: str, *, cut: str = "") -> list[int]:
    """The ids of a text without marks at its ends.

    cut: a token that is cut out of the text wherever it occurs, as SD 2.x's tokenizer does with its
    padding "!"; the two marks always are.
    """
    return [token for _, ids in split(text, cut=cut) for token in ids]


def split(text: str, *, cut: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    """The text's words, lower-case, each with its ids."""
    marks = {mark: (vocabulary()[mark],) for mark in (START, END, cut) if mark}
    for part in _around(text, tuple(marks)):
        if part in marks:
            yield part, marks[part]
            continue
        for word in _find_words()(_lowered(part)):
            yield word, _word_ids(word)


def _lowered(text: str) -> str:
    if text.isascii():
        return text.lower()
    # One letter after the other: a whole word's final sigma would become another letter.
    return "".join(letter.lower() for letter in unicodedata.normalize("NFC", text))


def _around(text: str, marks: Sequence[str]) -> list[str]:
    """The text in pieces, its marks by themselves."""
    pieces = [text]
    for mark in marks:
        if mark in text:
            pieces = [
                found
                for piece in pieces
                for number, part in enumerate(piece.split(mark))
                for found in ((mark, part) if number else (part,))
            ]
    return [piece for piece in pieces if piece]


def weighed(caption: str, *, weighted: bool) -> list[tuple[str, float]]:
    """The caption, mended, in pieces of one weight each; unweighted it is one piece.

    weighted: brackets are marks (`kit.dataset.prompt_weighting`), which are no words and have no
    tokens.
    """
    text = mended(caption)
    return parse_emphasis(text) if weighted else [(text, 1.0)]


@lru_cache(maxsize=200_000)
def count(caption: str, *, weighted: bool = False, cut: str = "") -> int:
    """How many tokens the caption has, without the marks that begin and end a window.

    Kept by text: the plan is drawn again at every key stroke of the form.
    """
    return sum(
        len(ids)
        for piece, _ in weighed(caption, weighted=weighted)
        for _, ids in split(piece, cut=cut)
    )


def beyond(caption: str, room: int, *, weighted: bool = False, cut: str = "") -> str:
    """The words, lower-case, of which not every token is among the first `room`; "" for none."""
    left, unread = room, []
    for piece, _ in weighed(caption, weighted=weighted):
        for word, ids in split(piece, cut=cut):
            left -= len(ids)
            if left < 0:
                unread.append(word)
    return " ".join(unread)
