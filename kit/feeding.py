"""Batches: everything that one backward pass reads, as a function of the micro-step's number.

Shapes: B batch, C latent channels, h w latent height and width, 6 SDXL's size numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kit import diffusion
from kit.caching import Latents, WordsCache
from kit.dataset.batches import batch_at
from kit.families import Family, Tokens, Words
from kit.planning import Plan


@dataclass(frozen=True)
class Batch:
    """Inputs of one backward pass, on the CPU. Either tokens or words are given."""

    latents_BChw: Tensor  # scaled
    noise_BChw: Tensor
    t_B: Tensor
    weight_B: Tensor  # 1, or prior_loss_weight for a regularisation image
    tokens: Tokens | None
    words: Words | None
    sizes_B6: Tensor | None
    number: int = 0  # the micro-step, from 0 over the whole run


@dataclass(frozen=True)
class Feed:
    """Makes the batch of any micro-step."""

    plan: Plan
    family: Family
    latents: Latents
    words: WordsCache | None

    def window(self, step: int) -> Iterator[Batch]:
        """The batches that make up a step (from 1)."""
        for number in self.plan.window(step):
            yield self.batch(number)

    def batch(self, number: int) -> Batch:
        """The batch of a micro-step (from 0)."""
        plan = self.plan
        epoch = number // plan.batches_per_epoch
        _, uses = batch_at(plan.layout, number)
        latents = [self.latents.of(use, epoch=epoch) for use in uses]
        clean = []
        for row, latent in enumerate(latents):
            std_Chw = torch.exp(0.5 * latent.logvar_Chw.clamp(-30.0, 20.0))
            draw_Chw = diffusion.draw_normal(tuple(std_Chw.shape), plan.seed, "latent", number, row)
            clean.append((latent.mean_Chw + std_Chw * draw_Chw) * self.family.latent_scale)
        captions = [plan.images[use.image].caption for use in uses]
        length = plan.settings.memory.max_token_length
        tokens = None if self.words else self.family.tokenize(captions, max_token_length=length)
        return Batch(
            latents_BChw=torch.stack(clean),
            noise_BChw=self._noise(number, len(uses), tuple(clean[0].shape)),
            t_B=torch.tensor(
                [diffusion.draw_timestep(plan.seed, "t", number, row) for row in range(len(uses))]
            ),
            weight_B=torch.tensor([self._weight(use.image) for use in uses]),
            tokens=tokens,
            words=self.words.of(captions) if self.words else None,
            sizes_B6=torch.tensor([latent.conditions for latent in latents]),
            number=number,
        )

    def _noise(self, number: int, rows: int, shape_Chw: tuple[int, ...]) -> Tensor:
        seed, strength = self.plan.seed, self.plan.settings.noise.noise_offset
        noise_BChw = torch.stack(
            [diffusion.draw_normal(shape_Chw, seed, "noise", number, row) for row in range(rows)]
        )
        if not strength:
            return noise_BChw
        draws_BC = torch.stack(
            [
                diffusion.draw_normal(shape_Chw[:1], seed, "offset", number, row)
                for row in range(rows)
            ]
        )
        return diffusion.offset_noise(noise_BChw, draws_BC, strength)

    def _weight(self, image: int) -> float:
        is_reg = self.plan.images[image].is_reg
        return self.plan.settings.noise.prior_loss_weight if is_reg else 1.0
