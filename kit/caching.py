"""Latents and encoded captions: made once and kept in memory or on disk, or made at each use.

A kept thing lies under a hash of all it depends on: the image's bytes, its size, cut and mirroring
and the VAE's weights; the caption's tokens and the text encoders' weights. Whatever changes is made
anew, so nothing stale can be trained on. Latents are kept as a distribution (mean and logvar), so
that each use can draw again, as without a cache.

Shapes: 3 colours, H W picture, C latent channels, h w latent height and width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from kit.dataset.batches import Use
from kit.dataset.buckets import Fit, Size, crop_conditions
from kit.dataset.captions import cached_captions
from kit.dataset.masks import mask_files, mask_of
from kit.dataset.pixels import (
    cut_offset,
    is_flipped,
    open_upright,
    prepared,
    recoloured,
    recolouring,
)
from kit.errors import DatasetError
from kit.events import Cached, Event, Noticed
from kit.families import Family, Tokens, Words
from kit.planning import Plan
from kit.runs import write_atomically

FOLDER = ".kit_cache"


@dataclass(frozen=True)
class Latent:
    """One image as the VAE sees it, unscaled float32 on the CPU, with SDXL's six numbers."""

    mean_Chw: Tensor
    logvar_Chw: Tensor
    conditions: tuple[int, ...]
    mask_hw: Tensor | None = None  # weights from 0 to 1; None: all of it is learned


class Latents(Protocol):
    """Gives the latent of one use of an image."""

    def of(self, use: Use, *, epoch: int) -> Latent:
        """The latent, cut and mirrored as this use asks."""
        ...


@dataclass(frozen=True)
class _Cut:
    """One image prepared one way."""

    image: int
    offset: Size
    flipped: bool
    hue: float = 0.0
    gamma: float = 1.0


class Encoder:
    """Images to latents through the family's VAE, in float32 where half precision overflows."""

    def __init__(self, plan: Plan, family: Family) -> None:
        self.plan, self.family = plan, family

    def cut(self, use: Use, *, epoch: int, flip: bool, random_crop: bool) -> _Cut:
        """How this use is cut: a function of (seed, epoch, image, turn)."""
        address = {"seed": self.plan.seed, "epoch": epoch, "image": use.image, "turn": use.turn}
        offset = cut_offset(self.plan.fits[use.image], **address, random=random_crop)
        flipped = flip and is_flipped(**address)
        if not self.plan.settings.images.color_aug:
            return _Cut(use.image, offset, flipped)
        return _Cut(use.image, offset, flipped, *recolouring(**address))

    def encode(self, cuts: Sequence[_Cut]) -> list[tuple[Tensor, Tensor]]:
        """Mean and logvar of each, in one batch.

        Raises: DatasetError where an image cannot be read or its latent is not finite.
        """
        pixels_B3HW = torch.stack([self._pixels(cut) for cut in cuts])
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
        noise, image = self.plan.settings.noise, self.plan.images[cut.image]
        if image.is_reg or not (noise.masked_loss or noise.alpha_mask):
            return None
        place = self.plan.fits[cut.image]
        weights_hw = mask_of(
            image.path,
            place,
            cut.offset,
            flipped=cut.flipped,
            files=self._mask_files,
            alpha=noise.alpha_mask,
        )
        return None if weights_hw is None else torch.from_numpy(weights_hw)

    @cached_property
    def _mask_files(self) -> dict[str, Path]:
        settings = self.plan.settings
        folder = settings.folders.conditioning_data_dir if settings.noise.masked_loss else ""
        return mask_files(folder) if folder else {}

    def _pixels(self, cut: _Cut) -> Tensor:
        picture = open_upright(self.plan.images[cut.image].path)
        place = self.plan.fits[cut.image]
        pixels_HW3 = prepared(picture, place, cut.offset, flipped=cut.flipped)
        pixels_HW3 = recoloured(pixels_HW3, cut.hue, cut.gamma)
        return torch.from_numpy(pixels_HW3).permute(2, 0, 1).float() / 127.5 - 1


@dataclass(frozen=True)
class LiveLatents:
    """Encodes at each use, for random cuts or for data sets larger than memory."""

    encoder: Encoder

    def of(self, use: Use, *, epoch: int) -> Latent:
        """Open, cut and encode the image now."""
        images = self.encoder.plan.settings.images
        cut = self.encoder.cut(
            use, epoch=epoch, flip=images.flip_aug, random_crop=images.random_crop
        )
        [(mean_Chw, logvar_Chw)] = self.encoder.encode([cut])
        return Latent(mean_Chw, logvar_Chw, self.encoder.conditions(cut), self.encoder.mask(cut))


@dataclass(frozen=True)
class KeptLatents:
    """Latents in memory, by image and mirroring."""

    encoder: Encoder
    kept: dict[tuple[int, bool], Latent]

    def of(self, use: Use, *, epoch: int) -> Latent:
        """Look it up."""
        flip = self.encoder.plan.settings.images.flip_aug
        cut = self.encoder.cut(use, epoch=epoch, flip=flip, random_crop=False)
        return self.kept[cut.image, cut.flipped]


class Shelf:
    """Tensors on disk by the hash of what they depend on; an unwritable place is left alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refused = ""

    @staticmethod
    def key(*parts: object) -> str:
        """The hash of everything that the thing depends on."""
        text = json.dumps(parts, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, key: str, *names: str) -> dict[str, Tensor] | None:
        """What lies there, or None where nothing whole with these names does."""
        path = self.folder / f"{key}.safetensors"
        try:
            tensors = safetensors.torch.load_file(path) if path.is_file() else {}
        except (SafetensorError, OSError):
            return None
        return tensors if tensors.keys() >= set(names) else None

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep it; the first refusal of the disk is remembered and nothing more is tried."""
        if self.refused:
            return
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(
                self.folder / f"{key}.safetensors",
                lambda part: safetensors.torch.save_file(whole, part),
            )
        except (OSError, SafetensorError) as error:
            self.refused = str(error)

    def notice(self) -> Iterator[Event]:
        """Tell where the disk refused."""
        if self.refused:
            yield Noticed(
                f"the cache cannot be kept in {self.folder} ({self.refused}); it stays in memory "
                "for this run"
            )


def cache_latents(plan: Plan, encoder: Encoder) -> Generator[Event, None, Latents]:
    """Encode every image, mirrored too where flip_aug asks, and keep the result."""
    settings = plan.settings
    cuts = list(_cuts(plan))
    shelf = Shelf(_folder(plan) / "latents") if settings.memory.cache_latents_to_disk else None
    vae = weights_hash([encoder.family.vae]) if shelf else ""
    kept: dict[tuple[int, bool], Latent] = {}
    for group in _grouped(plan, cuts, settings.memory.vae_batch_size):
        keys = [_latent_key(plan, cut, vae) for cut in group] if shelf else [""] * len(group)
        found = [shelf.get(key, "mean", "logvar") if shelf else None for key in keys]
        missing = [cut for cut, tensors in zip(group, found, strict=True) if tensors is None]
        fresh = iter(encoder.encode(missing) if missing else [])
        for cut, key, tensors in zip(group, keys, found, strict=True):
            if tensors is None:
                mean_Chw, logvar_Chw = next(fresh)
                tensors = {"mean": mean_Chw, "logvar": logvar_Chw}
                if shelf:
                    shelf.put(key, tensors)
            conditions = encoder.conditions(cut)
            kept[cut.image, cut.flipped] = Latent(
                tensors["mean"], tensors["logvar"], conditions, encoder.mask(cut)
            )
        yield Cached("latents", len(kept), len(cuts))
    if shelf:
        yield from shelf.notice()
    return KeptLatents(encoder, kept)


def _cuts(plan: Plan) -> Iterator[_Cut]:
    ways = (False, True) if plan.settings.images.flip_aug else (False,)
    for image, place in enumerate(plan.fits):
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


def _latent_key(plan: Plan, cut: _Cut, vae: str) -> str:
    place: Fit = plan.fits[cut.image]
    picture = _file_hash(plan.images[cut.image].path)
    return Shelf.key("latent", picture, place.resized, place.bucket, cut.offset, cut.flipped, vae)


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(
            f"The image {path} cannot be read: {error.strerror or error}",
            "It was there when the run was planned.",
            "Put it back, or plan the run again.",
        ) from error


def weights_hash(modules: Sequence[nn.Module]) -> str:
    """A hash of every weight's bytes, in the precision that it is used in."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            plain = tensor.detach().cpu().contiguous()
            digest.update(f"{name}{plain.dtype}{tuple(plain.shape)}".encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _folder(plan: Plan) -> Path:
    return Path(plan.settings.folders.train_data_dir).expanduser() / FOLDER


def _finite(*tensors: Tensor) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@dataclass(frozen=True)
class WordsCache:
    """Encoded captions in memory."""

    kept: dict[str, Words]

    def of(self, captions: Sequence[str]) -> Words:
        """The words of a batch, stacked."""
        rows = [self.kept[caption] for caption in captions]
        pooled = [row.pooled_BP for row in rows if row.pooled_BP is not None]
        hidden_BND = torch.cat([row.hidden_BND for row in rows])
        return Words(hidden_BND, torch.cat(pooled) if pooled else None)


@dataclass
class CaptionReader:
    """Captions to words through the family's text encoders."""

    plan: Plan
    family: Family
    adapters: tuple[nn.Module, ...] = ()  # beside the encoders: they too decide what is read

    def words(self, captions: Sequence[str]) -> Words:
        """Encode now; differentiable where the encoders learn."""
        memory = self.plan.settings.memory
        weights = None
        if self.plan.settings.captions.weighted_captions:
            length = memory.max_token_length
            weights = self.family.weights(captions, max_token_length=length)
        tokens = self._tokens(captions)
        return self.family.encode_tokens(tokens, clip_skip=memory.clip_skip, weights=weights)

    def key(self, caption: str) -> str:
        """A hash of all that its words depend on: what the encoders read, and how they read it."""
        ids = [windows.tolist() for windows in self._tokens([caption])]
        settings, weights = self.plan.settings, []
        if settings.captions.weighted_captions:
            length = settings.memory.max_token_length
            weights = [w.tolist() for w in self.family.weights([caption], max_token_length=length)]
        return Shelf.key("words", ids, weights, settings.memory.clip_skip, self._encoders)

    def _tokens(self, captions: Sequence[str]) -> Tokens:
        settings = self.plan.settings
        return self.family.tokenize(
            captions,
            max_token_length=settings.memory.max_token_length,
            weighted=settings.captions.weighted_captions,
        )

    @cached_property
    def _encoders(self) -> str:
        return weights_hash([*self.family.text_encoders, *self.adapters])


def _captions(plan: Plan) -> set[str]:
    """Every text that a use may read."""
    texts: set[str] = set()
    for number, image in enumerate(plan.images):
        settings = plan.settings.captions
        texts |= cached_captions(image.caption, settings, seed=plan.seed, image=number)
    return texts


def cache_words(
    plan: Plan, reader: CaptionReader, autocast: Callable[[], torch.autocast]
) -> Generator[Event, None, WordsCache]:
    """Encode every caption once and keep the result."""
    captions = sorted(_captions(plan))
    on_disk = plan.settings.memory.cache_text_encoder_outputs_to_disk
    shelf = Shelf(_folder(plan) / "captions") if on_disk else None
    kept: dict[str, Words] = {}
    for caption in captions:
        key = reader.key(caption) if shelf else ""
        tensors = shelf.get(key, "hidden") if shelf else None
        if tensors is None:
            with torch.no_grad(), autocast():
                words = reader.words([caption]).to(torch.device("cpu"))
            tensors = {"hidden": words.hidden_BND.float()}
            if words.pooled_BP is not None:
                tensors["pooled"] = words.pooled_BP.float()
            if shelf:
                shelf.put(key, tensors)
        kept[caption] = Words(tensors["hidden"], tensors.get("pooled"))
        yield Cached("captions", len(kept), len(captions))
    if shelf:
        yield from shelf.notice()
    return WordsCache(kept)
