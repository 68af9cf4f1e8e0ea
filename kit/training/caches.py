"""The caches of a run: what `kit.caching` is told by a plan."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import nn

from kit.caching.disk import DiskCache, weights_hash
from kit.caching.inpaint_latents import InpaintLatents
from kit.caching.latents import LatentEncoder, Latents, OnTheFlyLatents, cache_latents
from kit.caching.text import TextEmbedCache, all_captions, cache_text_embeds
from kit.dataset.captions import fullest_captions
from kit.devices import give_back
from kit.events import Event, Noticed
from kit.families import Family
from kit.families.resting import park, wake
from kit.families.text import TextConditioner
from kit.planning import Plan
from kit.processes import places
from kit.settings import Captions, Folders, Memory
from kit.settings.effective import (
    base_precision,
    cache_folder,
    caches_latents,
    caches_text_embeds,
)
from kit.training.ranks import ALONE, Ranks


def latent_encoder(plan: Plan, family: Family) -> LatentEncoder:
    """The plan's images on their way through the family's VAE."""
    machine = plan.settings.machine
    return LatentEncoder(
        family=family,
        images=plan.images,
        fits=plan.fits,
        settings_of=plan.settings_of,
        seed=plan.seed,
        workers=machine.max_data_loader_n_workers,
        workers_stay=machine.persistent_data_loader_workers,
    )


def text_conditioner(family: Family, memory: Memory, captions: Captions) -> TextConditioner:
    """The family's text encoders, reading as the settings say."""
    return TextConditioner(
        family,
        max_token_length=memory.max_token_length,
        clip_skip=memory.clip_skip,
        weighted=captions.weighted_captions,
    )


def run_latents(
    plan: Plan, family: Family, ranks: Ranks = ALONE
) -> Generator[Event, None, Latents]:
    """Cached latents, after which the VAE leaves the device; or those encoded at each use.

    Several processes divide the work, and share the cache on the disk.
    """
    wake(family.vae)
    encoder, settings = latent_encoder(plan, family), plan.settings
    memory, model = settings.memory, settings.model
    if not caches_latents(memory):
        return (InpaintLatents if model.train_inpainting else OnTheFlyLatents)(encoder)
    wanted = memory.cache_latents_to_disk
    try:
        latents = yield from cache_latents(
            encoder,
            batch_size=memory.vae_batch_size,
            disk=_disk("latents", _place(settings.folders, wanted, plan.run.dir, ranks), memory),
            source=model.vae or model.pretrained_model_name_or_path,
            division=ranks.division,
        )
    finally:
        encoder.pictures.close()
    for text in family.take_notices():
        yield Noticed(text)
    if not memory.highvram:
        family.vae.to("cpu")
        park(family.vae)
        give_back()
    return latents


def run_text_embeds(
    plan: Plan,
    text: TextConditioner,
    autocast: Callable[[], AbstractContextManager[Any]],
    ranks: Ranks = ALONE,
    *,
    adapters: Sequence[nn.Module] = (),
) -> Generator[Event, None, TextEmbedCache | None]:
    """Cached captions, after which the text encoders leave the device; or none.

    adapters: frozen ones beside the encoders, from network_weights: they act on what is cached.
    """
    wake(*text.family.text_encoders)
    settings = plan.settings
    memory, network = settings.memory, settings.network
    if not caches_text_embeds(memory):
        return None
    encoders = [*text.family.text_encoders, *adapters]
    wanted = memory.cache_text_encoder_outputs_to_disk
    place = _place(settings.folders, wanted, plan.run.dir, ranks)
    disk, made_by = _disk("captions", place, memory), ""
    if disk:
        names = (settings.model.pretrained_model_name_or_path, network.network_weights)
        kinds = (memory.mixed_precision, base_precision(memory))
        name = f"text encoders of {names} {kinds} {memory.compress_text_encoders}"
        made_by = disk.hashes.of(name, lambda: weights_hash(encoders))
        if ranks.is_first:
            disk.hashes.keep()
    captions = all_captions(plan.images, plan.settings_of, seed=plan.seed)
    for image in (*plan.validation.held_out, *plan.validation.beside):
        own = plan.settings_of(image).captions
        captions |= {fullest_captions(plan.images[image].caption, own)[0]}
    captions |= set(plan.validation.drawn)
    text_embeds = yield from cache_text_embeds(
        captions, text, autocast, disk=disk, made_by=made_by, division=ranks.division
    )
    if not memory.highvram:
        for module in encoders:
            module.to("cpu").float()  # half precision is slow or missing on CPUs
            park(module)
        give_back()
    return text_embeds


def _place(folders: Folders, wanted: bool, run_dir: Path, ranks: Ranks) -> Path | None:
    """Where caches lie on the disk, if they do; processes that divide them need it for a while."""
    if wanted:
        return cache_folder(folders)
    return run_dir / places.FOLDER / places.CACHE if ranks.count > 1 else None


def _disk(kind: str, place: Path | None, memory: Memory) -> DiskCache | None:
    """Where latents or captions are kept, if they are."""
    return None if place is None else DiskCache(place, kind, trusted=memory.skip_cache_check)
