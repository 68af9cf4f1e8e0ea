"""Loss masks at the latents' size: which mask belongs to which image.

Shapes: h w latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kit.dataset.buckets import BucketFit, Size
from kit.dataset.images import TrainImage
from kit.dataset.masks import NO_MASKS, MaskFolder, mask_files, mask_of
from kit.settings import Settings


class Masks:
    """The masks of a run's images; folders are read when the first of their images is."""

    def __init__(
        self,
        images: Sequence[TrainImage],
        fits: Sequence[BucketFit],
        settings_of: Callable[[int], Settings],
    ) -> None:
        """fits: one per image; settings_of: the settings that count for an image, by index."""
        self.images, self.fits, self.settings_of = images, fits, settings_of
        self._folders: dict[str, MaskFolder] = {}

    def of(self, image: int, offset: Size, *, flipped: bool) -> Tensor | None:
        """The weights of one cut's places, shape (h, w); None where all of it is learned."""
        noise = self.settings_of(image).noise
        if self.images[image].is_reg or not (noise.masked_loss or noise.alpha_mask):
            return None
        weights_hw = mask_of(
            self.images[image].path,
            self.fits[image],
            offset,
            flipped=flipped,
            masks=self._folder(image),
            alpha=noise.alpha_mask,
        )
        return None if weights_hw is None else torch.from_numpy(weights_hw)

    def is_alpha(self, image: int) -> bool:
        """The image's own transparency is its mask: not that of the folder, which counts before."""
        seen = self.images[image]
        if seen.is_reg or not self.settings_of(image).noise.alpha_mask:
            return False
        return self._folder(image).of(seen.path) is None

    def _folder(self, image: int) -> MaskFolder:
        settings = self.settings_of(image)
        folder = settings.folders.conditioning_data_dir
        if not (folder and settings.noise.masked_loss):
            return NO_MASKS
        if folder not in self._folders:
            self._folders[folder] = mask_files(folder)
        return self._folders[folder]
