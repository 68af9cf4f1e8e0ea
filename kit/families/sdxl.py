"""Stable Diffusion XL: two text encoders, size conditions, and Stability's own layer names.

Shapes: see `kit.families`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from kit import catalog
from kit.families import Conditioning, Layer, Norm, Prediction, TextEmbeds, Tokens
from kit.families import target_layers as layers
from kit.families.clip import (
    EncoderPart,
    Tokenizer,
    clip_penultimate,
    clip_penultimate_and_pooled,
    weigh,
)
from kit.families.kohya_names import sgm_path, sgm_position, unet_name
from kit.families.vae import VaeCoding

_ENCODERS = (
    EncoderPart("text_encoder", CLIPTextModel, "conditioner.embedders.0.transformer."),
    EncoderPart(
        "text_encoder_2",
        CLIPTextModelWithProjection,
        "conditioner.embedders.1.model.",
        tokenizer="tokenizer_2",
        pad="!",
    ),
)


@dataclass(eq=False)
class StableDiffusionXL(VaeCoding):
    """A frozen Stable Diffusion XL."""

    predicts: Prediction
    zero_terminal_snr: bool
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection
    tokenizer: Tokenizer
    tokenizer_2: Tokenizer
    key: str = field(init=False, default="sdxl")
    label: str = field(init=False)
    latent_scale: float = field(init=False)
    text_encoders: Sequence[nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        """Derive what the protocol asks for."""
        self.label = catalog.FAMILIES[self.key].label
        self.latent_scale = self.vae.config.scaling_factor
        self.text_encoders = (self.text_encoder, self.text_encoder_2)

    @staticmethod
    def encoder_parts(key: str) -> tuple[EncoderPart, ...]:
        """Both text encoders."""
        return _ENCODERS

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
    ) -> StableDiffusionXL:
        """The family of loaded parts; text encoders in the order of `encoder_parts`."""
        return cls(predicts, zero_terminal_snr, unet, vae, *encoders, *tokenizers)

    def tokenize(
        self, captions: Sequence[str], *, max_token_length: int, weighted: bool = False
    ) -> Tokens:
        """Captions to each encoder's ids, on the CPU; the encoders differ in their pad token."""
        return (
            self.tokenizer.windows(captions, max_token_length=max_token_length, weighted=weighted),
            self.tokenizer_2.windows(
                captions, max_token_length=max_token_length, weighted=weighted
            ),
        )

    def weights(self, captions: Sequence[str], *, max_token_length: int) -> Tokens:
        """How much each of the tokens counts, for each encoder."""
        return (
            self.tokenizer.weights(captions, max_token_length=max_token_length),
            self.tokenizer_2.weights(captions, max_token_length=max_token_length),
        )

    def encode_tokens(
        self,
        tokens: Tokens,
        *,
        clip_skip: int,
        weights: Tokens | None = None,
        draws: bool = False,
    ) -> TextEmbeds:
        """Ids to both encoders' penultimate states side by side, and the second's pooled vector.

        SDXL was trained on these layers alone, so clip_skip is not read. Weights do not touch the
        pooled vector, which stands for the whole caption, and count in prompts as in captions.
        """
        first_BND = clip_penultimate(self.text_encoder, tokens[0])
        eos = self.tokenizer_2.inner.eos_token_id
        second_BND, pooled_BP = clip_penultimate_and_pooled(self.text_encoder_2, tokens[1], eos=eos)
        one, two = weights or (None, None)
        both_BND = torch.cat([weigh(first_BND, one), weigh(second_BND, two)], dim=-1)
        return TextEmbeds(both_BND, pooled_BP)

    def condition(self, text_embeds: TextEmbeds, crops_B6: Tensor | None) -> Conditioning:
        """The embeddings, and the crops as they are."""
        return Conditioning(text_embeds, crops_B6)

    def predict(self, noisy_BChw: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        """The U-Net's prediction, given the crops; diffusers turns them into waves as sgm does."""
        text_embeds, time_ids_B6 = conditioning.text_embeds, conditioning.time_ids_B6
        assert text_embeds.pooled_BP is not None and time_ids_B6 is not None, (
            "SDXL needs pooled text embeddings and time ids"
        )
        weight = self.unet.conv_in.weight  # never adapted, so its type is the frozen U-Net's own
        added = {
            "text_embeds": text_embeds.pooled_BP.to(weight.device, weight.dtype),
            "time_ids": time_ids_B6.to(weight.device, torch.float32),  # bf16 cannot hold 1023
        }
        return self.unet(
            noisy_BChw.to(weight.device, weight.dtype),
            t_B.to(weight.device),
            text_embeds.hidden_BND.to(weight.device, weight.dtype),
            added_cond_kwargs=added,
        ).sample

    def layers(self) -> Iterator[Layer]:
        """Both text encoders, then the U-Net in sgm's order: input, middle, output."""
        yield from layers.text_encoder_layers(self.text_encoder, "te1")
        yield from layers.text_encoder_layers(self.text_encoder_2, "te2")
        per_block = self.unet.config.layers_per_block
        found = [
            (sgm_path(path, layers_per_block=per_block), path, module, in_transformer)
            for path, module, in_transformer in layers.unet_layers(self.unet)
        ]
        found.sort(key=lambda item: sgm_position(item[0]))
        for sgm, path, module, in_transformer in found:
            around = layers.blocks_around(self.unet, path)
            yield Layer(unet_name(sgm), module, "unet", in_transformer, path, around)

    def norms(self) -> Iterator[Norm]:
        """Of the U-Net's blocks."""
        per_block = self.unet.config.layers_per_block
        for path, module, in_transformer in layers.norm_layers(self.unet):
            name = unet_name(sgm_path(path, layers_per_block=per_block))
            around = layers.blocks_around(self.unet, path)
            yield Norm(name, module, "unet", in_transformer, path, around)
