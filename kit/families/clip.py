"""CLIP's words: captions to token ids, ids to hidden states.

Shapes: B batch, K windows of 77 tokens, D features, P pooled features, N = 2 + 75 K tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from kit.dataset import tokens
from kit.dataset.tokens import CONTENT, END
from kit.errors import SettingsError

WINDOW = 77  # tokens that CLIP reads at once: BOS, 75 of the caption, EOS
VOCABULARY = 49_408


@dataclass(frozen=True)
class EncoderPart:
    """One of a family's text encoders: where a model holds it, and how it is given tokens."""

    name: str  # its folder in a diffusers model
    kind: type[Any]  # of transformers
    prefix: str  # of its weights in a single file
    tokenizer: str = "tokenizer"  # the folder of its own, for encoders of other tokens than CLIP's
    pad: str = END
    splits_pad: bool = False  # the pad token is cut out of captions


@dataclass(frozen=True)
class Tokenizer:
    """Splits captions and fills windows.

    inner: what a pipeline of diffusers is given; pad: the id after the caption's end; encode: text
    to ids, which `inner` would give as well.
    """

    inner: CLIPTokenizer
    pad: int
    encode: Callable[[str], Sequence[int]]

    def windows(
        self, captions: Sequence[str], *, max_token_length: int, weighted: bool = False
    ) -> Tensor:
        """Ids of shape B K 77, K = max_token_length / 75; what is longer is cut off.

        weighted: brackets are weights (`kit.dataset.prompt_weighting`) and not read as words.
        Follows the reference id by id. Where the pad token is no EOS (SD 2.x, SDXL's second one),
        its windows of long captions obey two more rules; only SD 2.x's "!" (id 0) can trip on them.
        """
        count = _window_count(max_token_length)
        rows = []
        for caption in captions:
            ids, _ = self._read(caption, count * CONTENT, weighted=weighted)
            rows.append(self._filled(ids, count))
        return torch.tensor(rows)

    def weights(self, captions: Sequence[str], *, max_token_length: int) -> Tensor:
        """How much each token of `windows(..., weighted=True)` counts, shape B K 77."""
        count = _window_count(max_token_length)
        rows = []
        for caption in captions:
            _, weights = self._read(caption, count * CONTENT, weighted=True)
            weights += [1.0] * (count * CONTENT - len(weights))
            starts = range(0, count * CONTENT, CONTENT)
            rows.append([[1.0, *weights[start : start + CONTENT], 1.0] for start in starts])
        return torch.tensor(rows)

    def _read(self, caption: str, room: int, *, weighted: bool) -> tuple[list[int], list[float]]:
        """Ids without marks, at most `room`, and their weights."""
        ids: list[int] = []
        weights: list[float] = []
        for piece, weight in tokens.weighed(caption, weighted=weighted):
            found = self.encode(piece)
            ids += found
            weights += [weight] * len(found)
        return ids[:room], weights[:room]

    def _filled(self, ids: list[int], count: int) -> list[list[int]]:
        bos, eos = self.inner.bos_token_id, self.inner.eos_token_id
        room = count * CONTENT
        ids = [*ids, eos]
        ids += [self.pad] * (room + 1 - len(ids))
        if count == 1:
            return [[bos, *ids]]
        windows = []
        for start in range(0, room, CONTENT):
            content, last = ids[start : start + CONTENT], ids[-1]
            if self.pad != eos and content[-1] not in (eos, self.pad):
                last = eos
            if self.pad != eos and content[0] == self.pad:
                content = [eos, *content[1:]]
            windows.append([bos, *content, last])
        return windows


def _window_count(max_token_length: int) -> int:
    if max_token_length > 0 and max_token_length % CONTENT:
        raise SettingsError([f"max_token_length = {max_token_length}: it must be 75, 150 or 225"])
    return max(1, max_token_length // CONTENT)


def weigh(states_BND: Tensor, weights_BKN: Tensor | None, *, keeps_mean: bool = False) -> Tensor:
    """Each token's state times its weight.

    keeps_mean: a caption's states keep their mean over tokens and features.
    """
    if weights_BKN is None:
        return states_BND
    joined_BN1 = _join(weights_BKN[..., None].flatten(0, 1), weights_BKN)
    weighed_BND = states_BND * joined_BN1.to(states_BND)
    if not keeps_mean:
        return weighed_BND
    before_B11, after_B11 = (
        each_BND.float().mean(dim=(-2, -1), keepdim=True) for each_BND in (states_BND, weighed_BND)
    )
    ratio_B11 = torch.where(after_B11 == 0, torch.ones_like(after_B11), before_B11 / after_B11)
    return weighed_BND * ratio_B11.to(states_BND)


@functools.cache
def packaged_tokenizer(pad: str = END, *, splits_pad: bool = False) -> Tokenizer:
    """OpenAI CLIP's tokenizer, built from the packaged merges.

    splits_pad: the pad token is cut out of captions wherever it occurs, as SD 2.x's tokenizer does.
    """
    inner = CLIPTokenizer(
        vocab=tokens.vocabulary(),
        merges=[tuple(merge.split()) for merge in tokens.merges()],
        model_max_length=WINDOW,
        pad_token=pad if splits_pad else END,
    )
    encode = partial(tokens.encode, cut=pad if splits_pad else "")
    return Tokenizer(inner, tokens.vocabulary()[pad], encode)


def own_tokenizer(inner: CLIPTokenizer) -> Tokenizer:
    """A model's own, for text encoders that know other tokens than CLIP's."""

    def encode(text: str) -> list[int]:
        ids: list[int] = inner(text, add_special_tokens=False, verbose=False).input_ids
        return ids

    return Tokenizer(inner, inner.pad_token_id, encode)


def clip_hidden_states(text_encoder: nn.Module, ids_BKN: Tensor, *, skip: int) -> Tensor:
    """States after the last layer but `skip` - 1, with the final norm; shape B N D.

    skip: 1 or less is the last layer, 2 the one before it (NovelAI's "clip skip").
    """
    output = _run(text_encoder, ids_BKN, all_layers=skip > 1)
    if skip <= 1:
        return _join(output.last_hidden_state, ids_BKN)
    deepest = len(output.hidden_states)
    if skip > deepest:
        raise SettingsError([f"clip_skip = {skip}: this text encoder allows 1 to {deepest}"])
    # `text_model` is a level that transformers 5.6 dropped from CLIPTextModel.
    inner: Any = getattr(text_encoder, "text_model", text_encoder)
    return _join(inner.final_layer_norm(output.hidden_states[-skip]), ids_BKN)


def clip_penultimate(text_encoder: nn.Module, ids_BKN: Tensor) -> Tensor:
    """States of the last layer but one, without the final norm, as SDXL reads; shape B N D."""
    return _join(_run(text_encoder, ids_BKN, all_layers=True).hidden_states[-2], ids_BKN)


def clip_penultimate_and_pooled(
    text_encoder: nn.Module, ids_BKN: Tensor, *, eos: int
) -> tuple[Tensor, Tensor]:
    """The same, and the first window's projected state at its first EOS, shape B P.

    The position is looked up by the tokenizer's own EOS id: transformers takes the largest id where
    a model's settings say eos_token_id = 2, as SDXL's do, which fails once tokens are added.
    """
    output = _run(text_encoder, ids_BKN, all_layers=True)
    last_BND = output.last_hidden_state.unflatten(0, ids_BKN.shape[:2])[:, 0]
    ends_B = (ids_BKN[:, 0].to(last_BND.device) == eos).int().argmax(dim=1)
    rows_B = torch.arange(len(ends_B), device=last_BND.device)
    pooled_BP = text_encoder.text_projection(last_BND[rows_B, ends_B])  # type: ignore[operator]
    return _join(output.hidden_states[-2], ids_BKN), pooled_BP


def _run(text_encoder: nn.Module, ids_BKN: Tensor, *, all_layers: bool) -> Any:
    """All windows in one batch."""
    device = next(text_encoder.parameters()).device
    return text_encoder(ids_BKN.flatten(0, 1).to(device), output_hidden_states=all_layers)


def _join(states_XND: Tensor, ids_BKN: Tensor) -> Tensor:
    """Windows side by side: the first BOS, the 75 inner states of each, and the very last."""
    states_BKND = states_XND.unflatten(0, ids_BKN.shape[:2])
    inner_BND = states_BKND[:, :, 1:-1].flatten(1, 2)
    return torch.cat([states_BKND[:, 0, :1], inner_BND, states_BKND[:, -1, -1:]], dim=1)
