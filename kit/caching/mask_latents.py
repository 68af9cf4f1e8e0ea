"""Loss masks at the latents' size: which mask belongs to which image of a plan.

Shapes: h w latent height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kit.dataset.buckets import Size
from kit.dataset.masks import NO_MASKS, MaskFolder, mask_files, mask_of
from kit.planning import Plan


class Masks:
    """The masks of a plan's images; folders are read when the first of their images is."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._folders: dict[str, MaskFolder] = {}

    def of(self, image: int, offset: Size, *, flipped: bool) -> Tensor | None:
        """The weights of one cut's places, shape (h, w); None where all of it is learned."""
        noise = self.plan.settings_of(image).noise
        if self.plan.images[image].is_reg or not (noise.masked_loss or noise.alpha_mask):
            return None
        weights_hw = mask_of(
            self.plan.images[image].path,
            self.plan.fits[image],
            offset,
            flipped=flipped,
            masks=self._folder(image),
            alpha=noise.alpha_mask,
        )
        return None if weights_hw is None else torch.from_numpy(weights_hw)

    def is_alpha(self, image: int) -> bool:
        """The image's own transparency is its mask: not that of the folder, which counts before."""
        seen = self.plan.images[image]
        if seen.is_reg or not self.plan.settings_of(image).noise.alpha_mask:
            return False
        return self._folder(image).of(seen.path) is None

    def _folder(self, image: int) -> MaskFolder:
        settings = self.plan.settings_of(image)
        folder = settings.folders.conditioning_data_dir
        if not (folder and settings.noise.masked_loss):
            return NO_MASKS
        if folder not in self._folders:
            self._folders[folder] = mask_files(folder)
        return self._folders[folder]
