"""What to set where the memory is not enough: the fastest settings with the same effective batch.

    proposal(Candidate(settings, "sdxl"), Room("gpu", 14_000))   None where nothing fits

What is cached costs nothing; recomputing and smaller batches cost time, and which costs less is
reckoned; a base in fewer bits comes last, because it is another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from kit.basemodel import ModelFile
from kit.basemodel.mismatches import known_of
from kit.basemodel.preflight import found_model
from kit.dataset.buckets import BucketFit
from kit.dataset.images import TrainImage
from kit.hosts import free_memory, gpu, held_memory
from kit.planning.cache_sizes import CacheSizes, cache_sizes
from kit.planning.ladder import RUNGS, Rung
from kit.planning.lora_size import network_size
from kit.planning.needs import beside, host_megabytes, kind_of, megabytes, seconds_share
from kit.runs.measured import Measured, Work, work_of
from kit.settings import Model, Settings, effective
from kit.settings.rules import problems

LESS = 0.95  # of what did not fit: what is to be tried next needs at most this much
GPU_SHARE = 0.93  # of a card that is left beside its driver's context and the gaps
REAL_SIZE = 1_000_000_000  # bytes; smaller base models are none of the families' own layouts
RUNG: Mapping[str, Rung] = {rung.name: rung for rung in RUNGS}


@dataclass(frozen=True)
class Room:
    """The memory that a training may take: of a GPU, or else of the machine."""

    kind: str  # "gpu" or "cpu"
    megabytes: float
    host: float = math.inf  # beside a GPU, of the machine


@dataclass(frozen=True)
class Proposal:
    """Settings that fit, and what they need."""

    changes: Mapping[str, Any]
    megabytes: float
    share: float  # of the time that a step takes as it is set now

    def __str__(self) -> str:
        """As a person sets it."""
        wanted = ", ".join(f"{name} = {_shown(value)}" for name, value in self.changes.items())
        return f"{wanted} (about {self.megabytes / 1000:.1f} GB)"


def room_here() -> Room:
    """What this machine has: what is free, and what this process holds already."""
    host = (free_memory() + held_memory()) / 1e6
    if card := gpu():
        return Room("gpu", card.megabytes * GPU_SHARE, host)
    return Room("cpu", host)


class HasData(Protocol):
    """A plan's settings and pictures."""

    @property
    def settings(self) -> Settings:
        """The run's."""

    @property
    def images(self) -> Sequence[TrainImage]:
        """Each once."""

    @property
    def fits(self) -> Sequence[BucketFit]:
        """One per image."""


def sizes_of(plan: HasData, family: str) -> CacheSizes:
    """How large the caches of its data set are."""
    return cache_sizes(
        family,
        plan.settings.memory,
        plan.settings.captions,
        buckets=[fit.bucket for fit in plan.fits],
        captions=[image.caption for image in plan.images],
        flips=plan.settings.images.flip_aug,
    )


def candidate_of(plan: HasData, changes: Mapping[str, Any] | None = None) -> Candidate:
    """What a plan asks for, with these changes."""
    family, changes = family_of(plan.settings.model), changes or {}
    return Candidate(plan.settings.replace(**changes), family, changes, sizes_of(plan, family))


def family_of(model: Model) -> str:
    """The base model's family, where it has that family's real size; otherwise ""."""
    known, found = known_of(model), found_model(model.pretrained_model_name_or_path)
    if known is None or (isinstance(found, ModelFile) and _size(found) < REAL_SIZE):
        return ""
    return known.family


@dataclass(frozen=True)
class Candidate:
    """Settings for a base model of that family, and how they differ from what was asked."""

    settings: Settings
    family: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    caches: CacheSizes = field(default_factory=CacheSizes)

    @property
    def work(self) -> Work:
        """What its step is."""
        return work_of(self.settings, self.family)

    def megabytes(self, kind: str, row: Measured | None = None) -> float | None:
        """What it needs; row: a run that was measured. A CPU's caches are not in it."""
        size = network_size(self.settings, self.family) if self.family else None
        if size is None:
            return None
        if row is not None and row.work["family"] == self.family and kind_of(row.device) == kind:
            return beside(row, self.work, lora_weights=size.weights)
        return megabytes(self.work, kind, lora_weights=size.weights)

    @property
    def host(self) -> float:
        """MB of the machine's memory that it needs beside a GPU."""
        return host_megabytes(self.work, self.cached) if self.family else 0.0

    @property
    def cached(self) -> float:
        """MB of caches in the machine's memory."""
        return self.caches.in_memory(self.settings.memory)

    def fits(self, room: Room, row: Measured | None = None) -> bool:
        """It is known to fit."""
        need = self.megabytes(room.kind, row)
        if need is None:
            return False
        if room.kind == "cpu":
            return need + self.cached <= room.megabytes
        return need <= room.megabytes and self.host <= room.host

    def lower(self, rung: str) -> Candidate | None:
        """One rung further; None where it is taken, or contradicts other settings."""
        settings = self.settings
        learns = effective.encoder_learns(settings.basic, settings.rates)
        wanted = RUNG[rung].change(settings.basic, settings.memory, learns)
        if not wanted:
            return None
        changed, before = settings.replace(**wanted), set(problems(settings))
        if set(problems(changed)) - before:
            return None
        return Candidate(changed, self.family, {**self.changes, **wanted}, self.caches)


def proposal(asked: Candidate, room: Room, row: Measured | None = None) -> Proposal | None:
    """The fastest settings that fit; None where none do, or where it is not known."""
    same = list(_same(asked))
    for candidates in (same, _packed(same, "int8"), _packed(_packed(same, "int8"), "nf4")):
        found = []
        for each in (_caches_fit(candidate, room) for candidate in candidates):
            need = each.megabytes(room.kind, row)
            if need is not None and each.fits(room, row):
                share = seconds_share(each.work, asked.work, room.kind)
                found.append(Proposal(each.changes, need, share))
        if found:
            return min(found, key=lambda one: (one.share, len(one.changes)))
    return None


def advice(asked: Candidate) -> str:
    """What to set where this was tried and did not fit, as a sentence; "" where that is unknown."""
    room = room_here()
    needed = asked.megabytes(room.kind)
    if needed is None:
        return ""
    found = proposal(asked, replace(room, megabytes=min(room.megabytes, needed * LESS)))
    return f"Set {found}." if found and found.changes else ""


def _caches_fit(asked: Candidate, room: Room) -> Candidate:
    """Its caches read from the disk, as far as the machine's memory is too small for them."""
    for rung in ("latents on disk", "texts on disk"):
        taken = asked.host if room.kind == "gpu" else (asked.megabytes("cpu") or 0.0) + asked.cached
        if taken <= (room.host if room.kind == "gpu" else room.megabytes):
            break
        asked = asked.lower(rung) or asked
    return asked


def _same(asked: Candidate) -> Iterator[Candidate]:
    """Whatever leaves the training as it is but for rounding: caches, then all combinations."""
    yield asked
    cached = asked
    for name in ("latents", "texts"):
        cached = cached.lower(name) or cached
    for start in (cached, cached.lower("checkpointing")):
        step = start
        while step is not None:
            yield step
            step = step.lower("half batch")


def _packed(candidates: Sequence[Candidate], rung: str) -> list[Candidate]:
    """The same with the base model in fewer bits."""
    return [packed for each in candidates if (packed := each.lower(rung))]


def _size(file: ModelFile) -> int:
    if not file.is_folder:
        return file.path.stat().st_size
    return sum(each.stat().st_size for each in file.path.glob("*/*") if each.is_file())


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
