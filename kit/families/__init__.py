"""Base models, frozen: each turns pixels and words into a prediction of noise.

Everything that differs between Stable Diffusion 1.x, 2.x and XL lies in that family's file; no
other file of the house asks which family it has.

Shapes: B batch, 3 colours, H W picture, C latent channels, h w latent height and width, N tokens
of a caption, K windows of 77 tokens, D features, P pooled features, 6 numbers of a crop.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor, nn

from kit.families.companions import load_models

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


# diffusers imports bitsandbytes, which tells CPU users of an optional kernel that nobody misses.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
load_models()


class Prediction(StrEnum):
    """What the U-Net was trained to predict; the values are diffusers' names."""

    EPSILON = "epsilon"
    V = "v_prediction"


@dataclass(frozen=True)
class TextEmbeds:
    """Captions as the U-Net reads them: states of every token, and SDXL's pooled vector."""

    hidden_BND: Tensor
    pooled_BP: Tensor | None = None

    def to(self, device: torch.device) -> TextEmbeds:
        """The same embeddings on another device."""
        pooled_BP = None if self.pooled_BP is None else self.pooled_BP.to(device)
        return TextEmbeds(self.hidden_BND.to(device), pooled_BP)


@dataclass(frozen=True)
class Conditioning:
    """All that a U-Net reads beside noisy latents and timestep; its family makes it."""

    text_embeds: TextEmbeds
    time_ids_B6: Tensor | None = None  # SDXL's size conditions: original, crop, target

    def to(self, device: torch.device) -> Conditioning:
        """The same on another device."""
        time_ids_B6 = None if self.time_ids_B6 is None else self.time_ids_B6.to(device)
        return Conditioning(self.text_embeds.to(device), time_ids_B6)


Tokens = tuple[Tensor, ...]  # one tensor of token ids per text encoder, each of shape B K 77


@dataclass(frozen=True)
class Layer:
    """A place where an adapter may sit."""

    name: str  # the kohya module name, e.g. lora_unet_mid_block_attentions_0_proj_in
    module: nn.Linear | nn.Conv2d
    part: str  # "unet", "te" or, for SDXL, "te1" and "te2"
    # False: inside a ResNet, down- or up-sampler (the reference's conv extension)
    in_transformer: bool
    path: str = ""  # in its part, as diffusers and transformers have it
    blocks: frozenset[str] = frozenset()  # the classes of everything that it lies in

    @property
    def is_conv3x3(self) -> bool:
        """A convolution that looks at neighbours; it takes conv_dim instead of network_dim."""
        return isinstance(self.module, nn.Conv2d) and self.module.kernel_size != (1, 1)


@dataclass(frozen=True)
class Norm:
    """A normalisation, which may be adapted as well; the same facts as a layer's."""

    name: str
    module: nn.GroupNorm | nn.LayerNorm
    part: str
    in_transformer: bool
    path: str
    blocks: frozenset[str]
    is_conv3x3: ClassVar[bool] = False


class Family(Protocol):
    """A base model, frozen."""

    key: str  # "sd1", "sd2" or "sdxl"
    label: str  # "Stable Diffusion 1.x"
    predicts: Prediction
    zero_terminal_snr: bool  # the model was trained with betas rescaled to end in pure noise
    latent_scale: float  # latents are multiplied by it: 0.18215 or 0.13025
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: Sequence[nn.Module]

    def encode_pixels(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in [-1, 1] to the latents' mean and logvar, unscaled, float32, each B C h w.

        Both ways through the VAE turn it to float32 where half precision overflows, for good.
        """
        ...

    def decode_latents(self, latents_BChw: Tensor) -> Tensor:
        """Scaled latents to pixels in [-1, 1], shape B 3 H W, float32 on the CPU."""
        ...

    def take_notices(self) -> tuple[str, ...]:
        """What has happened in it that the person should know, each told once."""
        ...

    def tokenize(
        self, captions: Sequence[str], *, max_token_length: int, weighted: bool = False
    ) -> Tokens:
        """Captions to ids in K = max_token_length / 75 windows (75, 150 or 225 tokens).

        weighted: brackets are weights, for `weights` to read, and no words.
        """
        ...

    def weights(self, captions: Sequence[str], *, max_token_length: int) -> Tokens:
        """How much each token of weighted captions counts, in the ids' shapes."""
        ...

    def encode_tokens(
        self,
        tokens: Tokens,
        *,
        clip_skip: int,
        weights: Tokens | None = None,
        draws: bool = False,
    ) -> TextEmbeds:
        """Ids to what the U-Net reads; differentiable, so that text encoders can learn.

        draws: weights count as in the reference's sample prompts, which is not as in its captions.
        """
        ...

    def condition(self, text_embeds: TextEmbeds, crops_B6: Tensor | None) -> Conditioning:
        """The embeddings, and of the crops what this family was trained to read.

        crops_B6: original height, width; crop top, left; target height, width, in pixels.
        """
        ...

    def predict(self, noisy_BChw: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        """The U-Net's prediction, shape B C h w.

        For inpainting, noisy_BChw has the channels of `kit.diffusion.inpainting.unet_input`.
        """
        ...

    def layers(self) -> Iterator[Layer]:
        """Every place of text encoders and U-Net where an adapter may sit, in kohya's order.

        Asked before adapters are attached: it knows no adapter from a layer.
        """
        ...

    def norms(self) -> Iterator[Norm]:
        """The normalisations in U-Net blocks."""
        ...
