"""Latents and encoded captions: made once and kept in memory or on disk, or made at each use.

A kept thing lies under a hash of all it depends on: the image's bytes, its size, cut and mirroring
and the VAE's weights; the caption's tokens and the text encoders' weights. Whatever changes is made
anew, so nothing stale can be trained on. Latents are kept as a distribution (mean and logvar), so
that each use can draw again, as without a cache.

Shapes: 3 colours, H W picture, C latent channels, h w latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from kit.caching.disk import DiskCache, file_hash, folder_of, hashes_of, weights_hash
from kit.caching.mask_latents import Masks
from kit.caching.prefetch import Prefetcher
from kit.dataset.batches import ImageUse
from kit.dataset.buckets import Size, crop_conditions
from kit.dataset.captions import cached_captions
from kit.dataset.pixels import (
    alone_if_large,
    cut_offset,
    is_flipped,
    open_upright,
    prepared,
    recoloured,
    recolouring,
)
from kit.diffusion.inpainting import MaskedImage
from kit.errors import DatasetError
from kit.events import Cached, Event
from kit.families import Family, TextEmbeds, Tokens
from kit.planning import Plan
from kit.settings.effective import base_precision


@dataclass(frozen=True)
class Latent:
    """One image as the VAE sees it, unscaled float32 on the CPU, with SDXL's six numbers."""

    mean_Chw: Tensor
    logvar_Chw: Tensor
    conditions: tuple[int, ...]
    mask_hw: Tensor | None = None  # weights from 0 to 1; None: all of it is learned
    masked_image: MaskedImage | None = None  # for an inpainting model


class Latents(Protocol):
    """Gives the latent of one use of an image."""

    def of(self, use: ImageUse, *, epoch: int) -> Latent:
        """The latent, cut and mirrored as this use asks."""
        ...

    def prefetch(self, uses: Sequence[ImageUse], *, epoch: int) -> None:
        """These will be asked for soon, in this order."""
        ...

    @property
    def prefetch_batches(self) -> int:
        """How many batches it is good to prefetch."""
        ...

    def end_epoch(self) -> None:
        """An epoch is over: end threads that are not to outlive it."""
        ...

    def close(self) -> None:
        """End every thread."""
        ...


@dataclass(frozen=True)
class _Cut:
    """One image prepared one way."""

    image: int
    offset: Size
    flipped: bool
    hue: float = 0.0
    gamma: float = 1.0


class LatentEncoder:
    """Images to latents through the family's VAE, in float32 where half precision overflows."""

    def __init__(self, plan: Plan, family: Family) -> None:
        self.plan, self.family = plan, family
        self.masks = Masks(plan)
        workers = plan.settings.machine.max_data_loader_n_workers
        self.pictures: Prefetcher[_Cut, np.ndarray] = Prefetcher(self._prepared, workers=workers)

    def cut(self, use: ImageUse, *, epoch: int) -> _Cut:
        """How this use is cut: a function of (seed, epoch, image, turn)."""
        images = self.plan.settings_of(use.image).images
        address = {"seed": self.plan.seed, "epoch": epoch, "image": use.image, "turn": use.turn}
        offset = cut_offset(self.plan.fits[use.image], **address, random=images.random_crop)
        flipped = images.flip_aug and is_flipped(**address)
        if not images.color_aug:
            return _Cut(use.image, offset, flipped)
        return _Cut(use.image, offset, flipped, *recolouring(**address))

    def encode(self, cuts: Sequence[_Cut]) -> list[tuple[Tensor, Tensor]]:
        """Mean and logvar of each, in one batch.

        Raises: DatasetError where an image cannot be read or its latent is not finite.
        """
        return self.encoded(torch.stack([self.pixels(cut) for cut in cuts]), cuts)

    def encoded(self, pixels_B3HW: Tensor, cuts: Sequence[_Cut]) -> list[tuple[Tensor, Tensor]]:
        """Mean and logvar of pixels that were made of these cuts."""
        mean, logvar = self.family.encode_pixels(pixels_B3HW)
        if not _finite(mean, logvar):
            self.family.vae.float()
            mean, logvar = self.family.encode_pixels(pixels_B3HW)
        if not _finite(mean, logvar):
            names = ", ".join(self.plan.images[cut.image].path.name for cut in cuts)
            raise DatasetError(
                f"The VAE gives no finite latents for {names}, not even in 32 bits.",
                do="The VAE file is probably damaged: download it again, or set another vae.",
            )
        return list(zip(mean.cpu(), logvar.cpu(), strict=True))

    def conditions(self, cut: _Cut) -> tuple[int, ...]:
        """SDXL's six numbers for this cut."""
        image = self.plan.images[cut.image]
        place = self.plan.fits[cut.image]
        size = (image.width, image.height)
        return crop_conditions(size, place, cut.offset, flipped=cut.flipped)

    def mask(self, cut: _Cut) -> Tensor | None:
        """The weights of this cut's places, shape (h, w), where masks are used."""
        return self.masks.of(cut.image, cut.offset, flipped=cut.flipped)

    def pixels(self, cut: _Cut) -> Tensor:
        """The picture of this cut, from -1 to 1, shape 3 H W."""
        pixels_HW3 = self.pictures.take(cut)
        return torch.from_numpy(pixels_HW3).permute(2, 0, 1).float() / 127.5 - 1

    def _prepared(self, cut: _Cut) -> np.ndarray:
        """Pixels from 0 to 255 in the shape H W 3: a function of the cut alone."""
        image, is_masked = self.plan.images[cut.image], self.masks.is_alpha(cut.image)
        place = self.plan.fits[cut.image]
        with alone_if_large(image.width * image.height):
            picture = open_upright(image.path, on_white=not is_masked)
            pixels_HW3 = prepared(picture, place, cut.offset, flipped=cut.flipped)
        return recoloured(pixels_HW3, cut.hue, cut.gamma)


@dataclass(frozen=True)
class OnTheFlyLatents:
    """Encodes at each use, for random cuts or for data sets larger than memory."""

    encoder: LatentEncoder

    def of(self, use: ImageUse, *, epoch: int) -> Latent:
        """Open, cut and encode the image now."""
        cut = self._cut(use, epoch)
        [(mean_Chw, logvar_Chw)] = self.encoder.encode([cut])
        return Latent(mean_Chw, logvar_Chw, self.encoder.conditions(cut), self.encoder.mask(cut))

    def prefetch(self, uses: Sequence[ImageUse], *, epoch: int) -> None:
        """Have their pictures read."""
        self.encoder.pictures.prefetch(self._cut(use, epoch) for use in uses)

    @property
    def prefetch_batches(self) -> int:
        """One batch for each thread."""
        return self.encoder.pictures.workers

    def end_epoch(self) -> None:
        """Begin new threads in the next epoch, unless they are to stay."""
        if not self.encoder.plan.settings.machine.persistent_data_loader_workers:
            self.encoder.pictures.release_threads()

    def close(self) -> None:
        """End the threads."""
        self.encoder.pictures.close()

    def _cut(self, use: ImageUse, epoch: int) -> _Cut:
        return self.encoder.cut(use, epoch=epoch)


@dataclass(frozen=True)
class CachedLatents:
    """Latents in memory, by image and mirroring."""

    encoder: LatentEncoder
    kept: dict[tuple[int, bool], Latent]

    def of(self, use: ImageUse, *, epoch: int) -> Latent:
        """Look it up."""
        cut = self.encoder.cut(use, epoch=epoch)
        return self.kept[cut.image, cut.flipped]

    prefetch_batches = 0

    def prefetch(self, uses: Sequence[ImageUse], *, epoch: int) -> None:
        """All of it is there."""

    def end_epoch(self) -> None:
        """No threads."""

    def close(self) -> None:
        """No threads."""


def cache_latents(plan: Plan, encoder: LatentEncoder) -> Generator[Event, None, Latents]:
    """Encode every image, mirrored too where flip_aug asks, and keep the result."""
    settings = plan.settings
    cuts = list(_cuts(plan))
    disk = DiskCache(folder_of(plan) / "latents") if settings.memory.cache_latents_to_disk else None
    keys = _latent_keys(encoder, cuts) if disk else {}
    found: dict[_Cut, dict[str, Tensor]] = {}
    for cut, key in keys.items():
        if disk and (tensors := disk.get(key, "mean", "logvar")):
            found[cut] = tensors
    if found:
        yield Cached("latents", len(found), len(cuts))
    missing = [cut for cut in cuts if cut not in found]
    groups = list(_grouped(plan, missing, settings.memory.vae_batch_size))
    for number, group in enumerate(groups):
        for soon in groups[number : number + 1 + encoder.pictures.workers]:
            encoder.pictures.prefetch(soon)
        for cut, (mean_Chw, logvar_Chw) in zip(group, encoder.encode(group), strict=True):
            found[cut] = {"mean": mean_Chw, "logvar": logvar_Chw}
            if disk:
                disk.put(keys[cut], found[cut])
        yield Cached("latents", len(found), len(cuts))
    if disk:
        yield from disk.notice()
    kept = {
        (cut.image, cut.flipped): Latent(
            found[cut]["mean"], found[cut]["logvar"], encoder.conditions(cut), encoder.mask(cut)
        )
        for cut in cuts
    }
    return CachedLatents(encoder, kept)


def _cuts(plan: Plan) -> Iterator[_Cut]:
    for image, place in enumerate(plan.fits):
        ways = (False, True) if plan.settings_of(image).images.flip_aug else (False,)
        across, down = place.overhang
        for flipped in ways:
            yield _Cut(image, (across // 2, down // 2), flipped)


def _grouped(plan: Plan, cuts: Iterable[_Cut], most: int) -> Iterator[list[_Cut]]:
    """Cuts of one bucket, at most `most` together."""

    def bucket(cut: _Cut) -> Size:
        return plan.fits[cut.image].bucket

    for _, members in groupby(sorted(cuts, key=bucket), key=bucket):
        group = list(members)
        yield from (group[start : start + most] for start in range(0, len(group), most))


def _latent_keys(encoder: LatentEncoder, cuts: Sequence[_Cut]) -> dict[_Cut, str]:
    plan, vae = encoder.plan, encoder.family.vae
    hashes, model = hashes_of(plan), plan.settings.model
    source = model.vae or model.pretrained_model_name_or_path
    made_by = hashes.of(f"vae of {source} {vae.dtype}", lambda: weights_hash([vae]))
    keys = {}
    for cut in cuts:
        path, place = plan.images[cut.image].path, plan.fits[cut.image]
        picture = hashes.of(f"image {path}", partial(file_hash, path))
        parts = [place.resized, place.bucket, cut.offset, cut.flipped]
        parts += ["colours beneath alpha"] if encoder.masks.is_alpha(cut.image) else []
        keys[cut] = DiskCache.key("latent", picture, *parts, made_by)
    hashes.keep()
    return keys


def _finite(*tensors: Tensor) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@dataclass(frozen=True)
class TextEmbedCache:
    """Encoded captions in memory."""

    kept: dict[str, TextEmbeds]

    def of(self, captions: Sequence[str]) -> TextEmbeds:
        """The text embeddings of a batch, stacked."""
        rows = [self.kept[caption] for caption in captions]
        pooled = [row.pooled_BP for row in rows if row.pooled_BP is not None]
        hidden_BND = torch.cat([row.hidden_BND for row in rows])
        return TextEmbeds(hidden_BND, torch.cat(pooled) if pooled else None)


@dataclass
class CaptionReader:
    """Captions to text embeddings through the family's text encoders."""

    plan: Plan
    family: Family
    adapters: tuple[nn.Module, ...] = ()  # beside the encoders: they too decide what is read

    def encode_text(self, captions: Sequence[str]) -> TextEmbeds:
        """Encode now; differentiable where the encoders learn."""
        memory = self.plan.settings.memory
        weights = None
        if self.plan.settings.captions.weighted_captions:
            length = memory.max_token_length
            weights = self.family.weights(captions, max_token_length=length)
        tokens = self._tokens(captions)
        return self.family.encode_tokens(tokens, clip_skip=memory.clip_skip, weights=weights)

    def key(self, caption: str) -> str:
        """A hash of all that its embeddings depend on: what the encoders read, and how."""
        ids = [windows.tolist() for windows in self._tokens([caption])]
        settings, weights = self.plan.settings, []
        if settings.captions.weighted_captions:
            length = settings.memory.max_token_length
            weights = [w.tolist() for w in self.family.weights([caption], max_token_length=length)]
        return DiskCache.key("words", ids, weights, settings.memory.clip_skip, self._encoders)

    def _tokens(self, captions: Sequence[str]) -> Tokens:
        settings = self.plan.settings
        return self.family.tokenize(
            captions,
            max_token_length=settings.memory.max_token_length,
            weighted=settings.captions.weighted_captions,
        )

    @cached_property
    def _encoders(self) -> str:
        settings, hashes = self.plan.settings, hashes_of(self.plan)
        names = (settings.model.pretrained_model_name_or_path, settings.network.network_weights)
        memory = settings.memory
        kinds = (memory.mixed_precision, base_precision(memory))
        encoders = [*self.family.text_encoders, *self.adapters]
        name = f"text encoders of {names} {kinds} {memory.compress_text_encoders}"
        made_by = hashes.of(name, lambda: weights_hash(encoders))
        hashes.keep()
        return made_by


def _captions(plan: Plan) -> set[str]:
    """Every text that a use may read."""
    texts: set[str] = set()
    for number, image in enumerate(plan.images):
        settings = plan.settings_of(number).captions
        texts |= cached_captions(image.caption, settings, seed=plan.seed, image=number)
    return texts


def cache_text_embeds(
    plan: Plan, reader: CaptionReader, autocast: Callable[[], torch.autocast]
) -> Generator[Event, None, TextEmbedCache]:
    """Encode every caption once and keep the result."""
    captions = sorted(_captions(plan))
    on_disk = plan.settings.memory.cache_text_encoder_outputs_to_disk
    disk = DiskCache(folder_of(plan) / "captions") if on_disk else None
    kept: dict[str, TextEmbeds] = {}
    for caption in captions:
        key = reader.key(caption) if disk else ""
        tensors = disk.get(key, "hidden") if disk else None
        if tensors is None:
            with torch.no_grad(), autocast():
                text_embeds = reader.encode_text([caption]).to(torch.device("cpu"))
            tensors = {"hidden": text_embeds.hidden_BND.float()}
            if text_embeds.pooled_BP is not None:
                tensors["pooled"] = text_embeds.pooled_BP.float()
            if disk:
                disk.put(key, tensors)
        kept[caption] = TextEmbeds(tensors["hidden"], tensors.get("pooled"))
        yield Cached("captions", len(kept), len(captions))
    if disk:
        yield from disk.notice()
    return TextEmbedCache(kept)
