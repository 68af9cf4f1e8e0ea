"""Inpaint masks: which part of an image an inpainting model is to paint anew.

Shapes: H W of the picture, h w of the latent.
"""

from __future__ import annotations

import numpy as np

from kit.dataset.buckets import Size
from kit.randomness import random_at

WHOLE = 0.25  # of all uses; the share that the makers of SD 1.5's inpainting model took
LEAST = 8  # a hole's side is at least this part of the picture's
PIXELS = 8  # of a picture's side to one of the latent


def inpaint_mask_at(size: Size, *, seed: int, epoch: int, image: int, turn: int) -> np.ndarray:
    """The hole of this use of an image: True where it is to be painted, shape (H, W).

    A quarter of all holes is the whole picture, the others are half rectangles, half ellipses, of
    any size and place that fits in. Sources: the shapes,
    https://github.com/huggingface/diffusers/tree/main/examples/research_projects/dreambooth_inpaint;
    the quarter, https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-inpainting.
    """
    draw = random_at(seed, "hole", epoch, image, turn)
    width, height = size
    if draw.random() < WHOLE:
        return np.ones((height, width), dtype=bool)
    is_ellipse = draw.random() < 0.5
    wide = int(draw.integers(width // LEAST, width + 1))
    high = int(draw.integers(height // LEAST, height + 1))
    left = int(draw.integers(0, width - wide + 1))
    top = int(draw.integers(0, height - high + 1))
    across_W = (np.arange(width) + 0.5 - left) / wide * 2 - 1  # -1 to 1 inside
    down_H = (np.arange(height) + 0.5 - top) / high * 2 - 1
    if is_ellipse:
        inside: np.ndarray = down_H[:, None] ** 2 + across_W**2 <= 1
    else:
        inside = (abs(down_H) <= 1)[:, None] & (abs(across_W) <= 1)
    return inside


def in_latents(inpaint_mask_HW: np.ndarray) -> np.ndarray:
    """The hole at the latent's size: 1 to be painted, 0 to be kept, float32 of shape (h, w).

    Each value is that of its square's first pixel, as diffusers' inpainting pipelines scale. What
    is left of a side that is no multiple of 8 has no latent.
    """
    height, width = (side // PIXELS * PIXELS for side in inpaint_mask_HW.shape)
    smaller: np.ndarray = inpaint_mask_HW[:height:PIXELS, :width:PIXELS].astype(np.float32)
    return smaller
