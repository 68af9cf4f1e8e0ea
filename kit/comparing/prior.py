"""Pictures of the class word that the bare base draws itself: what a LoRA should leave alone.

The base explains its own pictures well. How much worse a LoRA does tells what the class word has
come to mean with it, without any picture being held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from kit.adapters.network import device_of
from kit.comparing.eyes import pixels_of
from kit.comparing.model import Model
from kit.diffusion.inpainting import takes_inpaint_cond
from kit.randomness import seed_for
from kit.training.batches import Batch
from kit.validation.questions import EACH, TIMESTEPS


@dataclass(frozen=True)
class Prior:
    """Such pictures, ready to be asked about."""

    batches: tuple[Batch, ...]

    @torch.no_grad()
    def loss(self, model: Model) -> float:
        """The mean loss with whatever acts on the base now."""
        device = model.accelerator.device
        losses = [model.loss(batch.to(device)).float() for batch in self.batches]
        return float(torch.cat(losses).mean())


def make_prior(
    model: Model, texts: Sequence[str], pictures: Sequence[Image.Image], *, rows: int
) -> Prior | None:
    """Of pictures that the base drew for these texts; None for inpainting models, and for none."""
    if not pictures or takes_inpaint_cond(model.family):
        return None
    latents = _latents(model, pictures)
    asked = [(place, part) for place in range(len(pictures)) for part in range(EACH)]
    batches = []
    for first in range(0, len(asked), rows):
        batches.append(_batch(model, texts, latents, asked[first : first + rows], pictures[0].size))
    return Prior(tuple(batches))


@torch.no_grad()
def _latents(model: Model, pictures: Sequence[Image.Image]) -> Tensor:
    device, found = device_of(model.family.vae), []
    for pixels in pixels_of(pictures).split(4):
        mean, _ = model.family.encode_pixels(pixels.to(device))
        found.append(mean.cpu() * model.family.latent_scale)
    return torch.cat(found)


def _batch(
    model: Model,
    texts: Sequence[str],
    latents_BChw: Tensor,
    asked: Sequence[tuple[int, int]],
    size: tuple[int, int],
) -> Batch:
    """Pictures by their place, each in a part of the timesteps; the middle of that part."""
    places = [place for place, _ in asked]
    tokens, weights = model.text.tokens([texts[place] for place in places])
    noise = [
        torch.randn(
            latents_BChw.shape[1:],
            generator=torch.Generator().manual_seed(seed_for(0, "prior", place, part) % 2**63),
        )
        for place, part in asked
    ]
    width, height = size
    return Batch(
        latents_BChw=latents_BChw[places],
        noise_BChw=torch.stack(noise),
        t_B=torch.tensor([int((part + 0.5) * TIMESTEPS / EACH) for _, part in asked]),
        weight_B=torch.ones(len(asked)),
        tokens=tokens,
        text_embeds=None,
        crops_B6=torch.tensor([[height, width, 0, 0, height, width]] * len(asked)),
        token_weights=weights,
    )
