"""What to set where the memory is not enough: the fastest settings with the same effective batch.

    proposal(settings, "sdxl", Room("gpu", 14_000))   the first that fits, or None

What is cached costs nothing; recomputing and smaller batches cost time, and which costs less is
reckoned; a base in fewer bits comes last, because it is another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kit.basemodel import ModelFile
from kit.basemodel.mismatches import known_of
from kit.basemodel.preflight import found_model
from kit.hosts import free_memory, gpu
from kit.planning.ladder import RUNGS, Rung
from kit.planning.lora_size import network_size
from kit.planning.needs import beside, kind_of, megabytes, seconds_share
from kit.runs.measured import Measured, work_of
from kit.settings import Settings, effective
from kit.settings.rules import problems

GPU_SHARE = 0.93  # of a card that is left beside its driver's context and the gaps
REAL_SIZE = 1_000_000_000  # bytes; smaller base models are none of the families' own layouts
RUNG: Mapping[str, Rung] = {rung.name: rung for rung in RUNGS}


@dataclass(frozen=True)
class Room:
    """The memory that a training may take: of a GPU, or else of the machine."""

    kind: str  # "gpu" or "cpu"
    megabytes: float


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
    """What this machine has."""
    if card := gpu():
        return Room("gpu", card.megabytes * GPU_SHARE)
    return Room("cpu", free_memory() / 1e6)


def family_of(settings: Settings) -> str:
    """The base model's family, where it has that family's real size; otherwise ""."""
    known = known_of(settings.model)
    found = found_model(settings.model.pretrained_model_name_or_path)
    if known is None or (isinstance(found, ModelFile) and _size(found) < REAL_SIZE):
        return ""
    return known.family


def needed(settings: Settings, family: str, kind: str, row: Measured | None = None) -> float | None:
    """Megabytes of a training; row: a run of the same base that was measured."""
    size = network_size(settings, family)
    if size is None:
        return None
    work = work_of(settings, family)
    if row is not None and row.work["family"] == family and kind_of(row.device) == kind:
        return beside(row, work, lora_weights=size.weights)
    return megabytes(work, kind, lora_weights=size.weights)


def proposal(
    settings: Settings, family: str, room: Room, row: Measured | None = None
) -> Proposal | None:
    """The fastest settings that fit; None where none do, or where it is not known."""
    now = work_of(settings, family)
    for candidates in (_same(settings), _fewer_bits(settings)):
        found = []
        for candidate, changes in candidates:
            need = needed(candidate, family, room.kind, row)
            if need is not None and need <= room.megabytes:
                share = seconds_share(work_of(candidate, family), now, room.kind)
                found.append(Proposal(changes, need, share))
        if found:
            return min(found, key=lambda each: (each.share, len(each.changes)))
    return None


def advice(settings: Settings) -> str:
    """What to set, as a sentence, where that is known here; otherwise ""."""
    family = family_of(settings)
    if not family:
        return ""
    found = proposal(settings, family, room_here())
    return f"Set {found}." if found and found.changes else ""


Candidate = tuple[Settings, dict[str, Any]]


def _same(settings: Settings) -> Iterator[Candidate]:
    """Whatever leaves the training as it is but for rounding: caches, then all combinations."""
    yield settings, {}
    plain: Candidate = (settings, {})
    for name in ("latents", "texts"):
        plain = _with(plain, name) or plain
        if plain[1]:
            yield plain
    for start in (plain, _with(plain, "checkpointing")):
        step = start
        while step is not None:
            yield step
            step = _with(step, "half batch")


def _fewer_bits(settings: Settings) -> Iterator[Candidate]:
    """The same with the base model in fewer bits."""
    for start in _same(settings):
        if packed := _with(start, "int8"):
            yield packed
    for start in _same(settings):
        if (packed := _with(start, "int8")) and (least := _with(packed, "nf4")):
            yield least


def _with(candidate: Candidate, rung: str) -> Candidate | None:
    """One rung further; None where it is taken, or contradicts other settings."""
    settings, changes = candidate
    learns = effective.encoder_learns(settings.basic, settings.rates)
    wanted = RUNG[rung].change(settings.basic, settings.memory, learns)
    if not wanted:
        return None
    changed = settings.replace(**wanted)
    known = set(problems(settings))
    return None if set(problems(changed)) - known else (changed, {**changes, **wanted})


def _size(file: ModelFile) -> int:
    if not file.is_folder:
        return file.path.stat().st_size
    return sum(each.stat().st_size for each in file.path.glob("*/*") if each.is_file())


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
