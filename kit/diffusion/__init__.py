"""Diffusion itself: noise and its schedule, losses, conditions of inpainting."""
