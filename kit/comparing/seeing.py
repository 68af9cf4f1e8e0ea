"""How alike what a file draws is to the training pictures, and to what the bare base draws.

Shapes: B pictures, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from kit.comparing.drawing import Drawn, Pictures
from kit.comparing.eyes import Eye

LITTLE = 1e-6


@dataclass(frozen=True)
class Sight:
    """What is seen of the training pictures, and of what the bare base drew."""

    eye: Eye
    asked: Drawn
    known: tuple[Tensor, ...]  # of each subject prompt: the pictures of that caption, shape B F
    base: Pictures
    subject_apart: float  # the base's pictures of the subject, from the training pictures
    others_apart: float  # the base's pictures of different prompts, from each other
    base_others: Tensor
    read: Tensor | None  # the other prompts, where the eye reads

    def likeness(self, drawn: Pictures) -> tuple[float, ...]:
        """Of each picture of the subject: 1 as the training pictures, 0 no nearer than the base."""
        if not drawn.subject:
            return ()
        each = _apart_from(self.eye.sees(drawn.subject), self.known)
        return tuple(round(1 - one / max(LITTLE, self.subject_apart), 4) for one in each)

    def fidelity(self, drawn: Pictures) -> tuple[float, ...]:
        """Of each other prompt: 1 as the base draws it, 0 as different as another prompt's picture.

        Where the eye reads: 1 as near to the prompt as the base's, 0 as near as to another prompt.
        """
        if not drawn.others:
            return ()
        if self.read is not None and len(set(self.asked.others)) > 1:
            return self._read_fidelity(drawn)
        apart = (self.eye.sees_places(drawn.others) - self.base_others).norm(dim=1)
        return tuple(round(1 - one / max(LITTLE, self.others_apart), 4) for one in apart.tolist())

    def _read_fidelity(self, drawn: Pictures) -> tuple[float, ...]:
        assert self.read is not None
        own = (self.eye.sees(drawn.others) * self.read).sum(1)
        near = self.eye.sees(self.base.others) @ self.read.T
        right, wrong = near.diagonal(), near[~torch.eye(len(near), dtype=torch.bool)].mean()
        span = max(LITTLE, float(right.mean() - wrong))
        return tuple(round(1 - one / span, 4) for one in (right - own).tolist())


def first_sight(
    eye: Eye, asked: Drawn, base: Pictures, known: Sequence[Sequence[Image.Image]]
) -> Sight:
    """known: of each subject prompt, the training pictures that have it as their caption."""
    seen = {id(picture): picture for group in known for picture in group}
    features = dict(zip(seen, eye.sees(list(seen.values())), strict=True)) if seen else {}
    groups = tuple(torch.stack([features[id(p)] for p in group]) for group in known)
    apart = _apart_from(eye.sees(base.subject), groups) if base.subject else [1.0]
    others = eye.sees_places(base.others) if base.others else torch.zeros(0, 1)
    return Sight(
        eye,
        asked,
        groups,
        base,
        sum(apart) / len(apart),
        _between(eye, asked, base),
        others,
        eye.reads([prompt.text for prompt in asked.others]) if base.others else None,
    )


def _between(eye: Eye, asked: Drawn, base: Pictures) -> float:
    """How far apart pictures of different prompts are, in the mean."""
    pictures = (*base.others, *base.subject)
    texts = [prompt.text for prompt in (*asked.others, *asked.subject)]
    if len(set(texts[: len(base.others)])) > 1:
        pictures, texts = base.others, texts[: len(base.others)]
    if len(pictures) < 2:
        return 1.0
    seen = eye.sees_places(pictures)
    pairs = [
        float((seen[i] - seen[j]).norm())
        for i in range(len(texts))
        for j in range(i)
        if texts[i] != texts[j]
    ]
    return sum(pairs) / len(pairs) if pairs else 1.0


def _apart_from(seen: Tensor, known: Sequence[Tensor]) -> list[float]:
    """Each picture's mean distance from those of its caption."""
    return [float((one - group).norm(dim=1).mean()) for one, group in zip(seen, known, strict=True)]
