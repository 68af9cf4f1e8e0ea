"""What sees how alike two pictures are: the base model's own features, or an image encoder.

The base's own are its U-Net's, which know objects better than pixels do (Tang et al. 2023,
https://arxiv.org/abs/2306.03881). What is shown: two layers on the way down and the block on the
way up that the source takes, wherever it is in the picture. Where it is shown: the middle block.

Shapes: B pictures, C channels, h w places, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from kit.adapters.network import device_of
from kit.comparing.model import Model
from kit.diffusion.inpainting import blank_inpaint_cond, unet_input
from kit.errors import KitError, MissingPackage, in_a_line

T = 100  # nearly clean: what is shown has its shape, and noise is not to be told from it
AT_ONCE = 8


class Eye(Protocol):
    """Sees pictures, and where it reads, prompts."""

    @property
    def name(self) -> str:
        """As a person is told."""

    def sees(self, pictures: Sequence[Image.Image]) -> Tensor:
        """What is shown, wherever it is: shape B F."""

    def sees_places(self, pictures: Sequence[Image.Image]) -> Tensor:
        """What is shown where: shape B F."""

    def reads(self, texts: Sequence[str]) -> Tensor | None:
        """Prompts in the space of `sees`; None where it cannot read."""


@dataclass(frozen=True)
class OwnEye:
    """The bare base model's; nothing may act on it while it looks."""

    model: Model
    name: str = "the base model's own features"

    def sees(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Mean, deviation, most and least of each channel over all places."""
        unet: Any = self.model.family.unet
        attending = [block for block in unet.down_blocks if hasattr(block, "attentions")]
        layers = [*(block.attentions[0] for block in attending[:2]), unet.up_blocks[1]]
        return torch.cat([_pooled(maps) for maps in self._maps(pictures, layers)], dim=1)

    def sees_places(self, pictures: Sequence[Image.Image]) -> Tensor:
        """The middle block's channels at each place."""
        unet: Any = self.model.family.unet
        return self._maps(pictures, [unet.mid_block])[0].flatten(1)

    def reads(self, texts: Sequence[str]) -> None:
        """It does not."""

    @torch.no_grad()
    def _maps(self, pictures: Sequence[Image.Image], layers: Sequence[nn.Module]) -> list[Tensor]:
        """What each of these layers gives, shape B C h w."""
        found: list[list[Tensor]] = [[] for _ in layers]
        hooks = [
            layer.register_forward_hook(partial(_keep, kept))
            for layer, kept in zip(layers, found, strict=True)
        ]
        try:
            for first in range(0, len(pictures), AT_ONCE):
                self._look(pictures[first : first + AT_ONCE])
        finally:
            for hook in hooks:
                hook.remove()
        return [torch.cat(kept) for kept in found]

    def _look(self, pictures: Sequence[Image.Image]) -> None:
        """Ask the U-Net about them as they are, with a blank caption."""
        family = self.model.family
        device, count = device_of(family.unet), len(pictures)
        width, height = pictures[0].size
        mean_BChw, _ = family.encode_pixels(pixels_of(pictures).to(device_of(family.vae)))
        latents = mean_BChw.to(device) * family.latent_scale
        crops_B6 = torch.tensor([[height, width, 0, 0, height, width]] * count)
        canvas_5hw = blank_inpaint_cond(family, (width, height))
        canvas = None if canvas_5hw is None else canvas_5hw.expand(count, -1, -1, -1)
        with self.model.accelerator.autocast():
            blank = self.model.text.prompt_embeds([""] * count)
            conditioning = family.condition(blank, crops_B6).to(device)
            t_B = torch.full((count,), T, device=device)
            family.predict(unet_input(latents, canvas), t_B, conditioning)


def _keep(kept: list[Tensor], _layer: nn.Module, _inputs: Any, output: Any) -> None:
    """A layer's forward hook; attention gives a tuple, or its like."""
    maps: Tensor = output if isinstance(output, Tensor) else output[0]
    kept.append(maps.float().cpu())


def _pooled(maps_BChw: Tensor) -> Tensor:
    places = (2, 3)
    spread = maps_BChw.std(places)
    parts = maps_BChw.mean(places), spread, maps_BChw.amax(places), maps_BChw.amin(places)
    return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class EncoderEye:
    """An image encoder of the Hugging Face Hub: CLIP and SigLIP also read, DINO only sees."""

    name: str
    model: Any
    tokenizer: Any
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @torch.no_grad()
    def sees(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Vectors of length 1."""
        pixels = torch.stack([self._resized(picture) for picture in pictures])
        device = next(self.model.parameters()).device
        found = []
        for part in pixels.split(AT_ONCE):
            inputs = part.to(device)
            if hasattr(self.model, "get_image_features"):
                found.append(_vector(self.model.get_image_features(pixel_values=inputs)))
            else:
                found.append(_vector(self.model(pixel_values=inputs)))
        return functional.normalize(torch.cat(found).float().cpu(), dim=1)

    def sees_places(self, pictures: Sequence[Image.Image]) -> Tensor:
        """The same: an encoder tells what is shown."""
        return self.sees(pictures)

    @torch.no_grad()
    def reads(self, texts: Sequence[str]) -> Tensor | None:
        """Vectors of length 1."""
        if self.tokenizer is None:
            return None
        device = next(self.model.parameters()).device
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, return_tensors="pt"
        )
        asked = {name: tokens[name].to(device) for name in ("input_ids", "attention_mask")
                 if name in tokens}  # fmt: skip
        found = _vector(self.model.get_text_features(**asked))
        return functional.normalize(found.float().cpu(), dim=1)

    def _resized(self, picture: Image.Image) -> Tensor:
        """The whole picture in the encoder's square: nothing is cut off. Shape 3 H W."""
        square = picture.convert("RGB").resize((self.side, self.side), Image.Resampling.BICUBIC)
        pixels_HW3 = torch.from_numpy(np.asarray(square, dtype=np.float32) / 255)
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return ((pixels_HW3 - mean) / std).permute(2, 0, 1)


HALF = (0.5, 0.5, 0.5)


def encoder_eye(name: str, device: torch.device) -> EncoderEye:
    """The encoder of that Hub id or folder, through transformers; its picture sizes are read here.

    Raises: KitError where it cannot be had, saying what goes on without it.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
        from transformers.image_processing_base import ImageProcessingMixin

        model = AutoModel.from_pretrained(name).eval().to(device)
        said, _ = ImageProcessingMixin.get_image_processor_dict(name)
        reads = hasattr(model, "get_text_features")
        tokenizer = AutoTokenizer.from_pretrained(name) if reads else None
        side = _side(said, model.config)
    except ImportError as error:
        raise MissingPackage(
            f"The encoder {name} cannot be used: {in_a_line(error)}",
            do="Install what it names; without it, the base model's own features are used.",
        ) from error
    except Exception as error:  # whatever the Hub, a file or a class of a model raises
        raise KitError(
            f"The encoder {name} cannot be had: {in_a_line(error)}",
            "It is a model of CLIP's, SigLIP's or DINO's kind on the Hugging Face Hub, such as "
            "openai/clip-vit-base-patch32, or a folder of one.",
            "Look at its name and the connection; without it, the base model's own features are "
            "used.",
        ) from error
    mean, std = (tuple(said.get(key) or HALF) for key in ("image_mean", "image_std"))
    return EncoderEye(name, model, tokenizer, side, mean, std)


def _side(said: Any, config: Any) -> int:
    """Pixels of a side, as the encoder's preprocessor or its configuration has them."""
    for key in ("crop_size", "size"):
        size = said.get(key)
        if isinstance(size, int):
            return size
        if isinstance(size, dict):
            return int(size.get("height") or size["shortest_edge"])
    vision = getattr(config, "vision_config", config)
    return int(vision.image_size)


def _vector(found: Any) -> Tensor:
    """An encoder's answer: the tensor itself, or what its class calls it."""
    if isinstance(found, Tensor):
        return found
    for key in ("image_embeds", "text_embeds", "pooler_output"):
        if (value := getattr(found, key, None)) is not None:
            return value if isinstance(value, Tensor) else torch.as_tensor(value)
    states: Tensor = found.last_hidden_state
    return states[:, 0]


def pixels_of(pictures: Sequence[Image.Image]) -> Tensor:
    """In [-1, 1], shape B 3 H W; all of the first one's size."""
    size = pictures[0].size
    arrays = [np.asarray(p.convert("RGB").resize(size), dtype=np.float32) for p in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1
