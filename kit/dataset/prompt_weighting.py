"""`(word:1.3)`, `(word)` and `[word]`: how strongly the words of a caption count.

The notation is the Stable Diffusion WebUI's: round brackets multiply by 1.1 or by the number behind
a colon, square ones divide by 1.1, nesting multiplies, a backslash makes a bracket an ordinary
character, and a bracket that is never closed reaches to the end. Of brackets within each other,
those beyond the 32nd are ordinary characters: so the time grows with the text alone.
https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features#attentionemphasis
"""

from __future__ import annotations

import re
from itertools import groupby
from operator import itemgetter

STEP = 1.1
DEEPEST = 32  # brackets within each other
LONGEST_NUMBER = 64  # characters, with the blanks around it
NUMBER_BEHIND = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")
BRACKETS = {")": "(", "]": "["}


def has_emphasis(text: str) -> bool:
    """There is a bracket in it."""
    return any(mark in text for mark in "()[]")


def parse_emphasis(text: str) -> list[tuple[str, float]]:
    """The text without its brackets, in pieces of one weight each."""
    letters: list[str] = []
    weights: list[float] = []
    opened: list[tuple[str, int]] = []  # which bracket, and how many letters stood before it
    at = 0
    while at < len(text):
        letter = text[at]
        if letter == "\\" and at + 1 < len(text) and text[at + 1] in "()[]\\":
            letters.append(text[at + 1])
            weights.append(1.0)
            at += 2
            continue
        if letter in BRACKETS.values() and len(opened) < DEEPEST:
            opened.append((letter, len(letters)))
        elif letter in BRACKETS and any(kind == BRACKETS[letter] for kind, _ in opened):
            start = _take(opened, BRACKETS[letter])
            factor = _factor(letter, letters, weights, start)
            weights[start:] = [weight * factor for weight in weights[start:]]
        else:
            letters.append(letter)
            weights.append(1.0)
        at += 1
    for kind, start in opened:
        factor = STEP if kind == "(" else 1 / STEP
        weights[start:] = [weight * factor for weight in weights[start:]]
    return _joined(letters, weights)


def _take(opened: list[tuple[str, int]], kind: str) -> int:
    """Close the innermost bracket of this kind; returns where it began."""
    index = max(i for i, (bracket, _) in enumerate(opened) if bracket == kind)
    return opened.pop(index)[1]


def _factor(closing: str, letters: list[str], weights: list[float], start: int) -> float:
    """What the bracket multiplies by; a number in front of a round one is taken out of the text."""
    if closing == "]":
        return 1 / STEP
    tail = max(start, len(letters) - LONGEST_NUMBER)
    match = NUMBER_BEHIND.search("".join(letters[tail:]))
    if match is None:
        return STEP
    del letters[tail + match.start() :], weights[tail + match.start() :]
    return float(match[1])


def _joined(letters: list[str], weights: list[float]) -> list[tuple[str, float]]:
    pairs = groupby(zip(letters, weights, strict=True), key=itemgetter(1))
    pieces = [("".join(letter for letter, _ in group), weight) for weight, group in pairs]
    return pieces or [("", 1.0)]
