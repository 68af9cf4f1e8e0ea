"""The frozen VAE of a family: pixels to latents and back, in 32 bits where 16 overflow.

Shapes: B batch, 3 colours, H W picture, C latent channels, h w latent height and width.
"""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor


class VaeCoding:
    """What a family does through its VAE; a base class of families.

    SDXL's own VAE overflows in fp16, others with some pictures only. The first numbers that are not
    finite turn the VAE to float32 for the rest of its life, and leave one notice.
    """

    vae: AutoencoderKL
    latent_scale: float
    _notices: tuple[str, ...] = ()

    def encode_pixels(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in [-1, 1] to the latents' mean and logvar, unscaled, float32, on its device."""
        mean_BChw, logvar_BChw = _encoded(self.vae, pixels_B3HW)
        if not _finite(mean_BChw, logvar_BChw) and self._turns_to_float32():
            mean_BChw, logvar_BChw = _encoded(self.vae, pixels_B3HW)
        return mean_BChw, logvar_BChw

    def decode_latents(self, latents_BChw: Tensor) -> Tensor:
        """Scaled latents to pixels in [-1, 1], float32 on the CPU."""
        unscaled_BChw = latents_BChw.float() / self.latent_scale
        pixels_B3HW = _decoded(self.vae, unscaled_BChw)
        if not _finite(pixels_B3HW) and self._turns_to_float32():
            pixels_B3HW = _decoded(self.vae, unscaled_BChw)
        return pixels_B3HW.clamp(-1, 1).cpu()

    def take_notices(self) -> tuple[str, ...]:
        """What the person should know of it, each told once."""
        taken, self._notices = self._notices, ()
        return taken

    def _turns_to_float32(self) -> bool:
        """Whether another try is worth it: not where 32 bits have overflowed already."""
        if self.vae.dtype == torch.float32:
            return False
        name = str(self.vae.dtype).removeprefix("torch.")
        self.vae.float()
        self._notices += (
            f"the VAE gave numbers that are not finite in {name}: it works in float32 from now on, "
            "which takes more memory; set no_half_vae to begin with that",
        )
        return True


@torch.no_grad()
def _encoded(vae: AutoencoderKL, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
    posterior = vae.encode(pixels_B3HW.to(vae.device, vae.dtype)).latent_dist
    return posterior.mean.float(), posterior.logvar.float()


@torch.no_grad()
def _decoded(vae: AutoencoderKL, unscaled_BChw: Tensor) -> Tensor:
    return vae.decode(unscaled_BChw.to(vae.device, vae.dtype)).sample.float()


def _finite(*tensors: Tensor) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
