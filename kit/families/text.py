"""The text conditioner: captions and prompts to text embeddings, as one run reads them.

Shapes: B batch, K windows of 77 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kit.dataset.prompt_weighting import has_emphasis
from kit.families import Family, TextEmbeds, Tokens


@dataclass(frozen=True)
class TextConditioner:
    """A family's text encoders with all that decides how a text is read."""

    family: Family
    max_token_length: int = 75  # 75, 150 or 225
    clip_skip: int = 1
    weighted: bool = False  # brackets in captions are weights (weighted_captions)

    def tokens(self, captions: Sequence[str]) -> tuple[Tokens, Tokens | None]:
        """Ids of captions, and how much each of them counts where captions have weights.

        One tensor of shape B K 77 for each text encoder, on the CPU.
        """
        length = self.max_token_length
        ids = self.family.tokenize(captions, max_token_length=length, weighted=self.weighted)
        if not self.weighted:
            return ids, None
        return ids, self.family.weights(captions, max_token_length=length)

    def encode(self, tokens: Tokens, weights: Tokens | None = None) -> TextEmbeds:
        """Embeddings of captions' tokens; differentiable where the encoders learn."""
        return self.family.encode_tokens(tokens, clip_skip=self.clip_skip, weights=weights)

    def embeds(self, captions: Sequence[str]) -> TextEmbeds:
        """Embeddings of captions."""
        return self.encode(*self.tokens(captions))

    def key(self, caption: str) -> tuple[Any, ...]:
        """All that a caption's embeddings depend on, the encoders themselves left out."""
        ids, weights = self.tokens([caption])
        listed = [[windows.tolist() for windows in part] for part in (ids, weights or ())]
        return (*listed, self.clip_skip)

    def prompt_tokens(self, texts: Sequence[str]) -> tuple[Tokens, Tokens | None]:
        """Ids of sample prompts, and where a text has brackets how much each counts.

        A text without brackets is read as a caption is, backslashes included.
        """
        length = self.max_token_length
        marked = [has_emphasis(text) for text in texts]
        rows = [
            self.family.tokenize([text], max_token_length=length, weighted=is_marked)
            for text, is_marked in zip(texts, marked, strict=True)
        ]
        ids = tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
        if not any(marked):
            return ids, None
        weights = self.family.weights(texts, max_token_length=length)
        plain_B = torch.tensor([not is_marked for is_marked in marked])
        return ids, tuple(
            torch.where(plain_B[:, None, None], torch.ones_like(part), part) for part in weights
        )

    def prompt_embeds(self, texts: Sequence[str]) -> TextEmbeds:
        """Embeddings of sample prompts, whose weights count as the reference's do."""
        ids, weights = self.prompt_tokens(texts)
        return self.family.encode_tokens(ids, clip_skip=self.clip_skip, weights=weights, draws=True)
