"""Stable Diffusion 1.x and 2.x: one text encoder, one U-Net, diffusers' layer names.

The two differ in their text encoder (CLIP ViT-L; OpenCLIP ViT-H without its last layer), in their
pad token, and in what they may predict. Shapes: see `kit.families`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from kit import catalog
from kit.families import Conditioning, Layer, Norm, Prediction, TextEmbeds, Tokens
from kit.families import target_layers as layers
from kit.families.clip import EncoderPart, Tokenizer, clip_hidden_states, weigh
from kit.families.kohya_names import unet_name
from kit.families.vae import VaeCoding

_ENCODERS = {
    "sd1": EncoderPart("text_encoder", CLIPTextModel, "cond_stage_model.transformer."),
    "sd2": EncoderPart(
        "text_encoder", CLIPTextModel, "cond_stage_model.model.", pad="!", splits_pad=True
    ),
}


@dataclass(eq=False)
class StableDiffusion(VaeCoding):
    """A frozen Stable Diffusion 1.x or 2.x."""

    key: str
    predicts: Prediction
    zero_terminal_snr: bool
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: Tokenizer
    label: str = field(init=False)
    latent_scale: float = field(init=False)
    text_encoders: Sequence[nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        """Derive what the protocol asks for."""
        self.label = catalog.FAMILIES[self.key].label
        self.latent_scale = self.vae.config.scaling_factor
        self.text_encoders = (self.text_encoder,)

    @staticmethod
    def encoder_parts(key: str) -> tuple[EncoderPart, ...]:
        """The text encoder."""
        return (_ENCODERS[key],)

    @classmethod
    def of_parts(
        cls,
        key: str,
        predicts: Prediction,
        zero_terminal_snr: bool,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        encoders: Sequence[Any],
        tokenizers: Sequence[Tokenizer],
    ) -> StableDiffusion:
        """The family of loaded parts; text encoders in the order of `encoder_parts`."""
        return cls(key, predicts, zero_terminal_snr, unet, vae, encoders[0], tokenizers[0])

    def tokenize(
        self, captions: Sequence[str], *, max_token_length: int, weighted: bool = False
    ) -> Tokens:
        """Captions to ids, on the CPU."""
        windows = self.tokenizer.windows(
            captions, max_token_length=max_token_length, weighted=weighted
        )
        return (windows,)

    def weights(self, captions: Sequence[str], *, max_token_length: int) -> Tokens:
        """How much each of the tokens counts."""
        return (self.tokenizer.weights(captions, max_token_length=max_token_length),)

    def encode_tokens(
        self,
        tokens: Tokens,
        *,
        clip_skip: int,
        weights: Tokens | None = None,
        draws: bool = False,
    ) -> TextEmbeds:
        """Ids to hidden states with the final norm.

        SD 2.x's encoder comes without the layer that its own convention skips: 1 is right for it.
        The weights of a prompt leave the mean of its states as it was, those of a caption do not.
        """
        states_BND = clip_hidden_states(self.text_encoder, tokens[0], skip=clip_skip)
        weights_BKN = weights[0] if weights else None
        return TextEmbeds(weigh(states_BND, weights_BKN, keeps_mean=draws))

    def condition(self, text_embeds: TextEmbeds, crops_B6: Tensor | None) -> Conditioning:
        """The embeddings alone; crops are not read."""
        return Conditioning(text_embeds)

    def predict(self, noisy_BChw: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        """The U-Net's prediction."""
        weight = self.unet.conv_in.weight  # never adapted, so its type is the frozen U-Net's own
        return self.unet(
            noisy_BChw.to(weight.device, weight.dtype),
            t_B.to(weight.device),
            conditioning.text_embeds.hidden_BND.to(weight.device, weight.dtype),
        ).sample

    def layers(self) -> Iterator[Layer]:
        """Text encoder, then U-Net in diffusers' order: down, up, mid."""
        yield from layers.text_encoder_layers(self.text_encoder, "te")
        for path, module, in_transformer in layers.unet_layers(self.unet):
            around = layers.blocks_around(self.unet, path)
            yield Layer(unet_name(path), module, "unet", in_transformer, path, around)

    def norms(self) -> Iterator[Norm]:
        """Of the U-Net's blocks."""
        for path, module, in_transformer in layers.norm_layers(self.unet):
            around = layers.blocks_around(self.unet, path)
            yield Norm(unet_name(path), module, "unet", in_transformer, path, around)
