"""What is drawn to compare files: the subject, and what the base model knew besides.

A folder `10_zib ball` names the subject (`zib`) and its class (`ball`). A caption without the
subject's word is a prompt of the class, which the bare base can draw as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kit.dataset.images import CONCEPT


@dataclass(frozen=True)
class Concept:
    """What a folder's name says: the subject's word, and the words of its class ("" for none)."""

    word: str
    kind: str = ""

    @classmethod
    def of(cls, folder: str) -> Concept:
        """Of `10_zib ball`, or `zib ball`."""
        found = CONCEPT.match(folder)
        word, _, kind = (found[2] if found else folder).strip().partition(" ")
        return cls(word, kind.strip())

    def is_in(self, text: str) -> bool:
        """The text names the subject."""
        return bool(self.word) and _alone(self.word).search(text) is not None

    def left_out_of(self, text: str) -> str:
        """The text without the subject's word; "" where it did not hold it."""
        if not self.is_in(text):
            return ""
        tags = (" ".join(tag.split()) for tag in _alone(self.word).sub("", text).split(","))
        return ", ".join(tag for tag in tags if tag)


def subject_prompts(captions: Sequence[str], count: int) -> tuple[str, ...]:
    """The captions, from the first again where there are fewer than `count`."""
    return tuple(captions[i % len(captions)] for i in range(count)) if captions else ()


def class_prompts(captions: Iterable[str], concepts: Sequence[Concept]) -> tuple[str, ...]:
    """The captions without the subjects' words, each once; or else the words of the classes."""
    found = []
    for caption in captions:
        text = caption
        for concept in concepts:
            text = concept.left_out_of(text) or text
        if text != caption and text:
            found.append(text)
    kinds = [concept.kind for concept in concepts if concept.kind]
    return tuple(dict.fromkeys(found or kinds))


def other_prompts(prompts: Iterable[str], concepts: Sequence[Concept]) -> tuple[str, ...]:
    """Those that name no subject, each once."""
    named = (p for p in prompts if not any(concept.is_in(p) for concept in concepts))
    return tuple(dict.fromkeys(p for p in named if p.strip()))


def _alone(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
