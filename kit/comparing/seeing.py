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
RIDGE = 2.0  # beside a feature's own spread of 1: there are few pictures, and many features
# From the bare base's pictures (0) to the training pictures (1): where one is taken for a subject.
UNLIKE, ALIKE = 0.4, 0.6


@dataclass(frozen=True)
class Recogniser:
    """Tells the subject from what the bare base draws, along the direction that parts the two.

    What else differs between pictures, such as background and place, weighs less: the direction is
    Fisher's discriminant (1936), with a ridge.
    """

    scale_F: Tensor
    direction_F: Tensor
    base: float
    span: float

    @classmethod
    def of(cls, known: Tensor, base: Tensor, others: Tensor) -> Recogniser:
        """Between training pictures (`known`) and the base's for their captions, each B F.

        others: the base's of other prompts, for how much pictures differ anyway.
        """
        groups = [group for group in (known, base, others) if len(group)]
        within = torch.cat([group - group.mean(0) for group in groups]).double()
        scale = within.std(0) + LITTLE
        within = within / scale
        apart = (known.mean(0) - base.mean(0)).double() / scale
        # The ridge's inverse by way of the pictures, of which there are fewer than features.
        between = RIDGE * len(within) * torch.eye(len(within)).double() + within @ within.T
        direction = (apart - within.T @ torch.linalg.solve(between, within @ apart)) / RIDGE
        ends = [float((group.double() / scale @ direction).mean()) for group in (base, known)]
        return cls(scale, direction, ends[0], max(LITTLE, ends[1] - ends[0]))

    def __call__(self, seen: Tensor) -> list[float]:
        """Of each picture: 1 the subject, 0 what the base draws, a share between."""
        places = (seen.double() / self.scale_F @ self.direction_F - self.base) / self.span
        return ((places - UNLIKE) / (ALIKE - UNLIKE)).clamp(0, 1).tolist()


@dataclass(frozen=True)
class Sight:
    """What is seen of the training pictures, and of what the bare base drew."""

    eye: Eye
    asked: Drawn
    recognised: Recogniser
    base: Pictures
    others_apart: float  # the base's pictures of different prompts, from each other
    base_others: Tensor
    read: Tensor | None  # the other prompts, where the eye reads

    def likeness(self, drawn: Pictures) -> tuple[float, ...]:
        """Of each picture of the subject: 1 where it is recognised, 0 as what the base draws."""
        if not drawn.subject:
            return ()
        return tuple(round(share, 4) for share in self.recognised(self.eye.sees(drawn.subject)))

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


def first_sight(eye: Eye, asked: Drawn, base: Pictures, known: Sequence[Image.Image]) -> Sight:
    """known: training pictures, held-out ones among them, of one size."""
    others = eye.sees_places(base.others)
    return Sight(
        eye,
        asked,
        Recogniser.of(eye.sees(known), eye.sees(base.subject), eye.sees(base.others)),
        base,
        _between(eye, asked, base),
        others,
        eye.reads([prompt.text for prompt in asked.others]),
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
