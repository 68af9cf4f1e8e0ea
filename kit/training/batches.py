"""Batches: everything that one backward pass reads, as a function of the micro-step.

Shapes: B batch, C latent channels, h w latent height and width, 6 numbers of a
crop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from kit.caching.latents import Latent, Latents
from kit.caching.text import TextEmbedCache
from kit.dataset.batches import AS_IT_IS, ImageUse, batch_at
from kit.dataset.captions import CaptionContext, cached_caption_at, caption_at
from kit.diffusion import noise as diffusion
from kit.diffusion.inpainting import MaskedImage, inpaint_cond
from kit.families import TextEmbeds, Tokens
from kit.families.text import TextConditioner
from kit.planning import Plan
from kit.settings.effective import multires_levels, noise_offset


@dataclass(frozen=True)
class Batch:
    """Inputs of one backward pass, made on the CPU. Either tokens or text_embeds are given."""

    latents_BChw: Tensor  # scaled
    noise_BChw: Tensor
    t_B: Tensor
    weight_B: Tensor  # 1, or prior_loss_weight for a regularisation image
    tokens: Tokens | None
    text_embeds: TextEmbeds | None
    crops_B6: Tensor | None  # of each image's cut, as Family.condition reads them
    token_weights: Tokens | None = None  # in the shapes of tokens, with weighted_captions
    perturbation_BChw: Tensor | None = None  # added to the noise that is seen, not to the target
    mask_B1hw: Tensor | None = None  # weight of each place, 0 to 1
    inpaint_cond_B5hw: Tensor | None = None  # an inpainting U-Net's further channels
    micro_step: int = 0  # from 0 over the whole run

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned()))

    def at_rest(self, device: torch.device) -> Batch:
        """A copy on the device, whose tensors are nobody else's: `take` fills them anew."""
        return self._each(lambda tensor: tensor.to(device, copy=True))

    def pinned(self) -> Batch:
        """In memory that a GPU reads by itself, while the host goes on."""
        return self._each(lambda tensor: tensor.pin_memory())

    def take(self, other: Batch) -> None:
        """Become another batch of the same shapes, in the same places."""
        for mine, new in zip(self.tensors(), other.tensors(), strict=True):
            mine.copy_(new, non_blocking=new.is_pinned())

    def tensors(self) -> list[Tensor]:
        """All of them, in one order."""
        return [tensor for value in vars(self).values() for tensor in _tensors(value)]

    def shapes(self) -> tuple[Hashable, ...]:
        """What two batches have in common that one graph serves: what is there, in which shapes."""
        return tuple(
            (name, *((tuple(t.shape), t.dtype) for t in _tensors(value)))
            for name, value in vars(self).items()
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(**{name: _changed(value, change) for name, value in vars(self).items()})

    def pieces(self, rows: int) -> Iterator[Batch]:
        """The same images, at most so many at once; 0: all of them."""
        size = len(self.t_B)
        if not rows or size <= rows:
            yield self
            return
        for first in range(0, size, rows):
            part = slice(first, first + rows)
            yield Batch(**{name: _cut(value, part) for name, value in vars(self).items()})


@dataclass(frozen=True)
class BatchBuilder:
    """Makes the batch of any micro-step.

    share: of a step's micro-steps those that this process makes, of several that train together;
    the pictures of others are not read ahead.
    """

    plan: Plan
    text: TextConditioner
    latents: Latents
    text_embeds: TextEmbedCache | None
    share: Callable[[range], range] = lambda micro_steps: micro_steps

    def micro_batches(self, step: int) -> Iterator[Batch]:
        """The batches that make up a step (from 1)."""
        for micro_step in self.plan.micro_steps(step):
            yield self.batch(micro_step)

    def batch(self, micro_step: int) -> Batch:
        """The batch of a micro-step (from 0)."""
        plan = self.plan
        epoch = micro_step // plan.batches_per_epoch
        self._prefetch(micro_step)
        _, uses = batch_at(plan.layout, micro_step)
        captions = [self._caption(use, micro_step) for use in uses]
        ts = [self._timestep(micro_step, row) for row in range(len(uses))]
        return self._made(uses, captions, ts, epoch=epoch, micro_step=micro_step)

    def still(self, image: int, *, caption: str, t: int, number: int) -> Batch:
        """One image as it is, at a timestep, with the noise that a number stands for."""
        use = ImageUse(image, AS_IT_IS)
        return self._made([use], [caption], [t], epoch=0, micro_step=number)

    def _made(
        self,
        uses: Sequence[ImageUse],
        captions: Sequence[str],
        ts: Sequence[int],
        *,
        epoch: int,
        micro_step: int,
    ) -> Batch:
        """A batch of these; the micro-step is the address of its draws."""
        latents = [self.latents.of(use, epoch=epoch) for use in uses]
        clean = []
        for row, latent in enumerate(latents):
            clean.append(self._drawn(latent, "latent", micro_step, row))
        latents_BChw = torch.stack(clean)
        tokens, weights = (None, None) if self.text_embeds else self.text.tokens(captions)
        return Batch(
            latents_BChw=latents_BChw,
            noise_BChw=self._noise(micro_step, latents_BChw),
            perturbation_BChw=self._perturbation(micro_step, latents_BChw.shape),
            mask_B1hw=_stacked_masks(latents, latents_BChw.shape[2:]),
            inpaint_cond_B5hw=self._inpaint_cond(latents, micro_step),
            t_B=torch.tensor(ts),
            weight_B=torch.tensor([self._weight(use.image) for use in uses]),
            tokens=tokens,
            token_weights=weights,
            text_embeds=self.text_embeds.of(captions) if self.text_embeds else None,
            crops_B6=torch.tensor([latent.crop for latent in latents]),
            micro_step=micro_step,
        )

    def pictures(self, micro_step: int) -> tuple[str, ...]:
        """The names of the files that a micro-step's batch is made of, row by row."""
        _, uses = batch_at(self.plan.layout, micro_step)
        return tuple(self.plan.images[use.image].path.name for use in uses)

    def close(self) -> None:
        """End every thread that reads."""
        self.latents.close()
        if self.text_embeds:
            self.text_embeds.close()

    def _prefetch(self, micro_step: int) -> None:
        """Tell what this batch and the next ones will ask for."""
        plan = self.plan
        if micro_step % plan.batches_per_epoch == 0:
            self.latents.end_epoch()
        pictures = self.latents.prefetch_batches
        captions = self.text_embeds.prefetch_batches if self.text_embeds else 0
        if not pictures and not captions:
            return
        coming = islice(self._coming(micro_step), 1 + max(pictures, captions))
        for distance, soon in enumerate(coming):
            _, uses = batch_at(plan.layout, soon)
            if pictures and distance <= pictures:
                self.latents.prefetch(uses, epoch=soon // plan.batches_per_epoch)
            if self.text_embeds and captions and distance <= captions:
                self.text_embeds.prefetch([self._caption(use, soon) for use in uses])

    def _coming(self, micro_step: int) -> Iterator[int]:
        """This one and those after it that this process makes, to the end of the run."""
        yield micro_step
        for step in range(self.plan.step_of(micro_step), self.plan.total_steps + 1):
            yield from (n for n in self.share(self.plan.micro_steps(step)) if n > micro_step)

    def _drawn(self, encoded: Latent | MaskedImage, name: str, micro_step: int, row: int) -> Tensor:
        """A draw from what the VAE saw, scaled, shape C h w."""
        std_Chw = torch.exp(0.5 * encoded.logvar_Chw.clamp(-30.0, 20.0))
        draw_Chw = diffusion.draw_normal(
            tuple(std_Chw.shape), self.plan.seed, name, micro_step, row
        )
        return (encoded.mean_Chw + std_Chw * draw_Chw) * self.text.family.latent_scale

    def _inpaint_cond(self, latents: Sequence[Latent], micro_step: int) -> Tensor | None:
        """Mask and masked image of every image that has them: all of a batch, or none."""
        rows = [
            inpaint_cond(
                masked_image.inpaint_mask_hw,
                self._drawn(masked_image, "surroundings", micro_step, row),
            )
            for row, latent in enumerate(latents)
            if (masked_image := latent.masked_image) is not None
        ]
        return torch.stack(rows) if rows else None

    def _caption(self, use: ImageUse, micro_step: int) -> str:
        """What the image's caption becomes at this use."""
        plan, settings = self.plan, self.plan.settings_of(use.image)
        context = CaptionContext(
            seed=plan.seed,
            epoch=micro_step // plan.batches_per_epoch + 1,
            step=plan.step_of(micro_step) - 1,
            total_steps=plan.total_steps,
            image=use.image,
            turn=use.turn,
        )
        read = cached_caption_at if self.text_embeds else caption_at
        return read(plan.images[use.image].caption, settings.captions, context)

    def _noise(self, micro_step: int, latents_BChw: Tensor) -> Tensor:
        """What the U-Net is asked for: plain noise, with the offset and the coarser levels."""
        noise_BChw = self._normal("noise", micro_step, latents_BChw.shape)
        if offset := noise_offset(self.plan.settings.noise):
            noise_BChw = self._with_offset(noise_BChw, offset, micro_step, latents_BChw)
        if levels := multires_levels(self.plan.settings.noise):
            noise_BChw = self._with_levels(noise_BChw, levels, micro_step)
        return noise_BChw

    def _with_offset(
        self, noise_BChw: Tensor, offset: float, micro_step: int, latents_BChw: Tensor
    ) -> Tensor:
        noise = self.plan.settings.noise
        draws_BC = self._normal("offset", micro_step, noise_BChw.shape[:2])
        if noise.noise_offset_random_strength:
            offset = diffusion.draw_uniform(
                0, offset, self.plan.seed, "offset strength", micro_step
            )
        strength: float | Tensor = offset
        if noise.adaptive_noise_scale:
            strength = diffusion.adapted_offset(latents_BChw, offset, noise.adaptive_noise_scale)
        return diffusion.offset_noise(noise_BChw, draws_BC, strength)

    def _with_levels(self, noise_BChw: Tensor, levels: int, micro_step: int) -> Tensor:
        seed, (rows, channels, height, width) = self.plan.seed, noise_BChw.shape
        ratios = [
            diffusion.draw_uniform(2, 4, seed, "multires ratio", micro_step, level)
            for level in range(levels)
        ]
        draws = [
            self._normal(f"multires {level}", micro_step, (rows, channels, *sides))
            for level, sides in enumerate(diffusion.multires_sides(height, width, ratios))
        ]
        discount = self.plan.settings.noise.multires_noise_discount
        return diffusion.multires_noise(noise_BChw, draws, discount=discount)

    def _perturbation(self, micro_step: int, shape_BChw: torch.Size) -> Tensor | None:
        """What ip_noise_gamma adds to the noise that the U-Net sees, and is not asked for."""
        noise = self.plan.settings.noise
        if not (gamma := noise.ip_noise_gamma):
            return None
        if noise.ip_noise_gamma_random_strength:
            gamma = diffusion.draw_uniform(0, gamma, self.plan.seed, "ip strength", micro_step)
        return gamma * self._normal("ip", micro_step, shape_BChw)

    def _normal(self, name: str, micro_step: int, shape: Sequence[int]) -> Tensor:
        """Normal numbers, a row for each image of the batch, each at an address of its own."""
        rows = [
            diffusion.draw_normal(tuple(shape[1:]), self.plan.seed, name, micro_step, row)
            for row in range(shape[0])
        ]
        return torch.stack(rows)

    def _timestep(self, micro_step: int, row: int) -> int:
        noise = self.plan.settings.noise
        return diffusion.draw_timestep(
            self.plan.seed, "t", micro_step, row, least=noise.min_timestep, end=noise.max_timestep
        )

    def _weight(self, image: int) -> float:
        is_reg = self.plan.images[image].is_reg
        return self.plan.settings.noise.prior_loss_weight if is_reg else 1.0


def _cut(value: Any, part: slice) -> Any:
    """The rows of everything that has some."""
    if isinstance(value, tuple):
        return tuple(_cut(each, part) for each in value)
    if isinstance(value, TextEmbeds):
        pooled_BP = _cut(value.pooled_BP, part)
        return TextEmbeds(value.hidden_BND[part], pooled_BP)
    return value[part] if isinstance(value, Tensor) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, TextEmbeds):
        yield from _tensors((value.hidden_BND, value.pooled_BP))


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same value with each of its tensors changed."""
    if isinstance(value, tuple):
        return tuple(_changed(each, change) for each in value)
    if isinstance(value, TextEmbeds):
        pooled_BP = _changed(value.pooled_BP, change)
        return TextEmbeds(change(value.hidden_BND), pooled_BP)
    return change(value) if isinstance(value, Tensor) else value


def _stacked_masks(latents: Sequence[Latent], sides: Sequence[int]) -> Tensor | None:
    """A batch's masks; an image without one is learned whole."""
    masks = [latent.mask_hw for latent in latents]
    if all(mask is None for mask in masks):
        return None
    whole = torch.ones(tuple(sides))
    return torch.stack([whole if mask is None else mask for mask in masks])[:, None]
