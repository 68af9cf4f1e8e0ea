"""Latents for inpainting models: each use of an image is encoded whole, and with a new hole.

Shapes: 3 colours, H W picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from kit.caching.latents import Latent, OnTheFlyLatents
from kit.dataset.batches import ImageUse
from kit.dataset.inpaint_masks import in_latents, inpaint_mask_at
from kit.diffusion.inpainting import MaskedImage, grayed


@dataclass(frozen=True)
class InpaintLatents(OnTheFlyLatents):
    """Latents on the fly, with those of the masked image, by (seed, epoch, image, turn)."""

    def of(self, use: ImageUse, *, epoch: int) -> Latent:
        """Open and cut the image now; encode it as it is, and with its hole."""
        encoder = self.encoder
        cut, seed = encoder.cut(use, epoch=epoch), encoder.seed
        pixels_3HW = encoder.pixels(cut)
        height, width = pixels_3HW.shape[1:]
        inpaint_mask_HW = inpaint_mask_at(
            (width, height), seed=seed, epoch=epoch, image=use.image, turn=use.turn
        )
        both_23HW = torch.stack([pixels_3HW, grayed(pixels_3HW, torch.from_numpy(inpaint_mask_HW))])
        whole, masked = encoder.encoded(both_23HW, [cut])
        latent = Latent(*whole, encoder.crop(cut), encoder.mask(cut))
        return replace(
            latent, masked_image=MaskedImage(torch.from_numpy(in_latents(inpaint_mask_HW)), *masked)
        )
