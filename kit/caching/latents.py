"""Latents: encoded once and kept in memory or on disk, or encoded at each use.

A kept latent lies under a hash of all it depends on: the image's bytes, its size, cut and mirroring
and the VAE's weights. Whatever changes is encoded anew, so nothing stale can be trained on. Latents
are kept as a distribution (mean and logvar), so
that each use can draw again, as without a cache.

Shapes: 3 colours, H W picture, C latent channels, h w latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kit.caching.disk import DiskCache, Hashes, file_hash, weights_hash
from kit.caching.division import UNDIVIDED, Division
from kit.caching.mask_latents import Masks
from kit.caching.prefetch import Prefetcher
from kit.caching.shelf import Shelf, reread, unmapped
from kit.dataset.batches import AS_IT_IS, ImageUse
from kit.dataset.buckets import BucketFit, Size, crop_conditions
from kit.dataset.images import TrainImage
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
from kit.families import Family
from kit.settings import Settings


@dataclass(frozen=True)
class Latent:
    """One image as the VAE sees it, unscaled float32 on the CPU."""

    mean_Chw: Tensor
    logvar_Chw: Tensor
    crop: tuple[int, ...]  # original height, width; crop top, left; target height, width
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


@dataclass
class LatentEncoder:
    """Images to latents through the family's VAE.

    settings_of: the settings that count for an image, by index; workers: threads that read images,
    which go on into the next epoch where they stay.
    """

    family: Family
    images: Sequence[TrainImage]
    fits: Sequence[BucketFit]  # one per image
    settings_of: Callable[[int], Settings]
    seed: int
    workers: int = 0
    workers_stay: bool = False
    masks: Masks = field(init=False)
    pictures: Prefetcher[_Cut, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        """Masks and threads come when they are needed."""
        self.masks = Masks(self.images, self.fits, self.settings_of)
        self.pictures = Prefetcher(self._prepared, workers=self.workers)

    def cut(self, use: ImageUse, *, epoch: int) -> _Cut:
        """How this use is cut: a function of (seed, epoch, image, turn)."""
        if use.turn == AS_IT_IS:
            across, down = self.fits[use.image].overhang
            return _Cut(use.image, (across // 2, down // 2), False)
        images = self.settings_of(use.image).images
        address = {"seed": self.seed, "epoch": epoch, "image": use.image, "turn": use.turn}
        offset = cut_offset(self.fits[use.image], **address, random=images.random_crop)
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
        if not bool((mean.isfinite() & logvar.isfinite()).all()):
            names = ", ".join(self.images[cut.image].path.name for cut in cuts)
            raise DatasetError(
                f"The VAE gives no finite latents for {names}, not even in 32 bits.",
                do="The VAE file is probably damaged: download it again, or set another vae.",
            )
        return list(zip(mean.cpu(), logvar.cpu(), strict=True))

    def crop(self, cut: _Cut) -> tuple[int, ...]:
        """Where this cut lies in its image: the six numbers of `Latent.crop`."""
        image = self.images[cut.image]
        place = self.fits[cut.image]
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
        image, is_masked = self.images[cut.image], self.masks.is_alpha(cut.image)
        place = self.fits[cut.image]
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
        return Latent(mean_Chw, logvar_Chw, self.encoder.crop(cut), self.encoder.mask(cut))

    def prefetch(self, uses: Sequence[ImageUse], *, epoch: int) -> None:
        """Have their pictures read."""
        self.encoder.pictures.prefetch(self._cut(use, epoch) for use in uses)

    @property
    def prefetch_batches(self) -> int:
        """One batch for each thread."""
        return self.encoder.pictures.workers

    def end_epoch(self) -> None:
        """Begin new threads in the next epoch, unless they are to stay."""
        if not self.encoder.workers_stay:
            self.encoder.pictures.release_threads()

    def close(self) -> None:
        """End the threads."""
        self.encoder.pictures.close()

    def _cut(self, use: ImageUse, epoch: int) -> _Cut:
        return self.encoder.cut(use, epoch=epoch)


_Place = tuple[int, bool]  # an image and whether it is mirrored


@dataclass(frozen=True)
class CachedLatents:
    """Encoded latents by image and mirroring, in memory or read from the disk ahead."""

    encoder: LatentEncoder
    kept: Shelf[_Place, Latent]

    def of(self, use: ImageUse, *, epoch: int) -> Latent:
        """Look it up."""
        return self.kept[self._place(use, epoch)]

    @property
    def prefetch_batches(self) -> int:
        """None where all of it is in memory."""
        return self.kept.batches_ahead

    def prefetch(self, uses: Sequence[ImageUse], *, epoch: int) -> None:
        """Have those read that lie on the disk alone."""
        self.kept.prefetch(self._place(use, epoch) for use in uses)

    def end_epoch(self) -> None:
        """The threads read on."""

    def close(self) -> None:
        """End the threads."""
        self.kept.close()

    def _place(self, use: ImageUse, epoch: int) -> _Place:
        cut = self.encoder.cut(use, epoch=epoch)
        return cut.image, cut.flipped


def cache_latents(
    encoder: LatentEncoder,
    *,
    batch_size: int,
    disk: DiskCache | None = None,
    source: str = "",
    division: Division = UNDIVIDED,
) -> Generator[Event, None, Latents]:
    """Encode every image, mirrored too where flip_aug asks, and keep the result.

    batch_size: of the VAE; source: the file or folder of the VAE, by whose name its hash is kept.
    What the disk keeps stays in memory only as far as a `Shelf` has room. division: of the work
    among processes that share the disk; what another one could not keep there is encoded here, too.
    """
    cuts = list(_cuts(encoder))
    keys = _latent_keys(encoder, cuts, disk.hashes, source) if disk else {}
    if disk and division.keeps_hashes:
        disk.hashes.keep()
    by_place = {(cut.image, cut.flipped): cut for cut in cuts}

    def read(place: _Place) -> Latent:
        assert disk is not None, "what lies nowhere else stays in memory"
        cut = by_place[place]
        return _latent(encoder, cut, reread(disk, keys[cut], "mean", "logvar"))

    kept: Shelf[_Place, Latent] = Shelf(read, _bytes)

    def looked_up(wanted: Iterable[_Cut]) -> list[_Cut]:
        """Put what the disk has on the shelf; the rest is still to be encoded."""
        missing = []
        for cut in wanted:
            if disk and (tensors := disk.get(keys[cut], "mean", "logvar")):
                latent = _latent(encoder, cut, unmapped(tensors))
                kept.put((cut.image, cut.flipped), latent, on_disk=True)
            else:
                missing.append(cut)
        return missing

    def encoded(groups: Sequence[list[_Cut]]) -> Iterator[Cached]:
        for number, group in enumerate(groups):
            for soon in groups[number : number + 1 + encoder.pictures.workers]:
                encoder.pictures.prefetch(soon)
            for cut, (mean_Chw, logvar_Chw) in zip(group, encoder.encode(group), strict=True):
                tensors = {"mean": mean_Chw, "logvar": logvar_Chw}
                if disk:
                    disk.put(keys[cut], tensors)
                latent = _latent(encoder, cut, unmapped(tensors))
                on_disk = bool(disk and not disk.refused)
                kept.put((cut.image, cut.flipped), latent, on_disk=on_disk)
            yield Cached("latents", len(kept), len(cuts))

    missing = looked_up(cuts)
    if kept:
        yield Cached("latents", len(kept), len(cuts))
    groups = list(_grouped(encoder, missing, batch_size))
    division.meet()  # all have looked before one writes, so that they divide the same
    yield from encoded(division.own(groups))
    division.meet()
    there = set(kept)
    others = looked_up(cut for cut in missing if (cut.image, cut.flipped) not in there)
    yield from encoded(list(_grouped(encoder, others, batch_size)))
    if kept and division.count > 1:
        yield Cached("latents", len(kept), len(cuts))
    if disk:
        yield from disk.notice()
    return CachedLatents(encoder, kept)


def _latent(encoder: LatentEncoder, cut: _Cut, tensors: Mapping[str, Tensor]) -> Latent:
    return Latent(tensors["mean"], tensors["logvar"], encoder.crop(cut), encoder.mask(cut))


def _bytes(latent: Latent) -> int:
    mask = 0 if latent.mask_hw is None else latent.mask_hw.nbytes
    return latent.mean_Chw.nbytes + latent.logvar_Chw.nbytes + mask


def _cuts(encoder: LatentEncoder) -> Iterator[_Cut]:
    for image, place in enumerate(encoder.fits):
        ways = (False, True) if encoder.settings_of(image).images.flip_aug else (False,)
        across, down = place.overhang
        for flipped in ways:
            yield _Cut(image, (across // 2, down // 2), flipped)


def _grouped(encoder: LatentEncoder, cuts: Iterable[_Cut], most: int) -> Iterator[list[_Cut]]:
    """Cuts of one bucket, at most `most` together."""

    def bucket(cut: _Cut) -> Size:
        return encoder.fits[cut.image].bucket

    for _, members in groupby(sorted(cuts, key=bucket), key=bucket):
        group = list(members)
        yield from (group[start : start + most] for start in range(0, len(group), most))


def _latent_keys(
    encoder: LatentEncoder, cuts: Sequence[_Cut], hashes: Hashes, source: str
) -> dict[_Cut, str]:
    vae = encoder.family.vae
    made_by = hashes.of(f"vae of {source} {vae.dtype}", lambda: weights_hash([vae]))
    keys = {}
    for cut in cuts:
        path, place = encoder.images[cut.image].path, encoder.fits[cut.image]
        picture = hashes.of(f"image {path}", partial(file_hash, path))
        parts = [place.resized, place.bucket, cut.offset, cut.flipped]
        parts += ["colours beneath alpha"] if encoder.masks.is_alpha(cut.image) else []
        keys[cut] = DiskCache.key("latent", picture, *parts, made_by)
    return keys
