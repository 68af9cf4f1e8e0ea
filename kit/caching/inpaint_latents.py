"""Latents for inpainting models: each use of an image is encoded whole, and with a new hole.

Shapes: 3 colours, H W picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from kit.caching.latents import Latent, LiveLatents
from kit.dataset.batches import Use
from kit.dataset.inpaint_masks import hole_at, in_latents
from kit.diffusion.inpainting import Surroundings, grayed


@dataclass(frozen=True)
class HoledLatents(LiveLatents):
    """Live latents with the surroundings of a hole: a function of (seed, epoch, image, turn)."""

    def of(self, use: Use, *, epoch: int) -> Latent:
        """Open and cut the image now; encode it as it is, and with its hole."""
        encoder = self.encoder
        cut, seed = encoder.cut(use, epoch=epoch), encoder.plan.seed
        pixels_3HW = encoder.pixels(cut)
        height, width = pixels_3HW.shape[1:]
        hole_HW = hole_at((width, height), seed=seed, epoch=epoch, image=use.image, turn=use.turn)
        both_23HW = torch.stack([pixels_3HW, grayed(pixels_3HW, torch.from_numpy(hole_HW))])
        whole, holed = encoder.encoded(both_23HW, [cut])
        latent = Latent(*whole, encoder.conditions(cut), encoder.mask(cut))
        return replace(latent, around=Surroundings(torch.from_numpy(in_latents(hole_HW)), *holed))
