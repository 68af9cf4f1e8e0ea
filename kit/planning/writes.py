"""What a run will write, told before it begins, and whether there is room for it. No torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kit.dataset.buckets import Size
from kit.planning.cache_sizes import CacheSizes
from kit.planning.lora_size import network_size
from kit.planning.proposals import HasData, family_of, sizes_of
from kit.runs.disk import free_at
from kit.runs.resume import keeps_states
from kit.runs.run import Run
from kit.settings import Memory, Samples, Saving, effective
from kit.settings.prompts import Prompt

# Bytes that an optimizer keeps of a weight of 4 bytes. Measured over five layers of rank 16.
ADAM = 8.0
KEPT = {
    "Adafactor": 0.3, "AdamW8bit": 2.3, "PagedAdamW8bit": 2.3, "Lion8bit": 1.2,
    "PagedLion8bit": 1.2, "SGDNesterov8bit": 1.2, "bitsandbytes.optim.AdEMAMix8bit": 3.3,
    "bitsandbytes.optim.PagedAdEMAMix8bit": 3.3, "Lion": 4.0, "SGDNesterov": 4.0,
    "SGDScheduleFree": 4.0, "prodigyplus.ProdigyPlusScheduleFree": 4.7,
    "pytorch_optimizer.CAME": 4.6, "DAdaptation": 12.0, "DAdaptAdaGrad": 12.0, "DAdaptAdam": 12.0,
    "DAdaptAdamPreprint": 12.0, "DAdaptAdan": 20.0, "DAdaptAdanIP": 20.0, "Prodigy": 16.0,
}  # fmt: skip
OWN_STATES = 3  # the newest, the one before it, and the one that is being written
PICTURE_BYTES_PER_PIXEL = 1.5  # of a PNG


class Planned(HasData, Protocol):
    """What is read of a plan."""

    @property
    def prompts(self) -> Sequence[Prompt]:
        """Of the sample pictures."""

    @property
    def run(self) -> Run:
        """Where it writes."""

    @property
    def total_steps(self) -> int:
        """In all."""

    @property
    def steps_per_epoch(self) -> int:
        """The last one of an epoch may be shorter."""

    @property
    def from_step(self) -> int:
        """Steps that are done already."""


@dataclass(frozen=True)
class Length:
    """Steps in all, in an epoch, and done already."""

    total: int
    per_epoch: int
    done: int = 0

    def turns(
        self, epochs: int | None, steps: int | None, *, last: bool = False
    ) -> tuple[int, int]:
        """How often something is still due by epochs, and by steps alone; last: the end counts."""
        end = self.total if last else self.total - 1
        by_epoch = self.per_epoch * (epochs or 0)
        both = math.lcm(by_epoch, steps) if by_epoch and steps else 0

        def due(interval: int) -> int:
            return max(0, end // interval - self.done // interval) if interval else 0

        return due(by_epoch), due(steps or 0) - due(both)


@dataclass(frozen=True)
class Part:
    """So many files of one kind, each of about as many bytes."""

    noun: str
    count: int
    each: float

    def __str__(self) -> str:
        """`11 LoRA files of 38 MB`."""
        many = f"{self.count} {self.noun}" + ("" if self.count == 1 else "s")
        return f"{many} of {_told(self.each)}"


@dataclass(frozen=True)
class Writes:
    """What a run will write in its own folders, and beside the images."""

    output: tuple[Part, ...]
    cache: tuple[Part, ...]
    places: tuple[Path, ...]  # of the output: where it works, and where it is kept
    cache_folder: Path
    replaced: int = 0  # bytes that lie there and will be overwritten

    def __str__(self) -> str:
        """A line of the plan."""
        parts = [*self.output, *self.cache]
        free = " and ".join(
            f"{_told(_free_in(place))} are free in {place}" for place in self.places
        )
        return f"writes about {_told(_sum(parts))}: {', '.join(map(str, parts))}; {free}"

    def problems(self) -> Iterator[str]:
        """That an output folder's disk is too small."""
        for place in self.places:
            parts = [*self.output, *(self.cache if self._shares_disk(place) else ())]
            needed, free = _sum(parts) - self.replaced, _free_in(place)
            if needed > free:
                yield (
                    f"[folders] output_dir: {_told(free)} are free in {place}, and the run will "
                    f"write about {_told(needed)} ({', '.join(map(str, parts))}); free some space, "
                    "choose another folder, or keep less (save_last_n_epochs, save_last_n_steps, "
                    "save_state)"
                )

    def notices(self) -> Iterator[str]:
        """That the caches do not fit on a disk of their own."""
        needed, free = _sum(self.cache), _free_in(self.cache_folder)
        if needed > free and not any(self._shares_disk(place) for place in self.places):
            yield (
                f"of the caches on disk, about {_told(needed)}, what does not fit stays in memory: "
                f"{_told(free)} are free in {self.cache_folder}"
            )

    def _shares_disk(self, place: Path) -> bool:
        return _disk(place) == _disk(self.cache_folder)


def unwritable(run: Run) -> Iterator[str]:
    """Why no folder can be made where the run shall write."""
    for place in dict.fromkeys((run.output_dir, run.kept_in)):
        above = place.absolute()
        while not above.exists() and above != above.parent:
            above = above.parent
        if not above.is_dir():
            yield f"[folders] output_dir: {above} is a file, and no folder; name a folder"
        elif not os.access(above, os.W_OK | os.X_OK):
            yield f"[folders] output_dir: nothing may be written in {above}; name another folder"


def foreseen(plan: Planned) -> Writes | None:
    """What will be written; None where the size of network and base is not known beforehand."""
    settings, run = plan.settings, plan.run
    family = family_of(settings.model)
    size = network_size(settings, family) if family else None
    if size is None:
        return None
    halved = bool(effective.full_precision(settings.memory))
    state = state_bytes(size.weights, settings.basic.optimizer_type, halved=halved)
    length = Length(plan.total_steps, plan.steps_per_epoch, plan.from_step)
    saved, states = _saves(settings.saving, length)
    output = (
        Part("LoRA file", saved, size.bytes),
        Part("state", OWN_STATES + states, state),
        *_pictures(settings.samples, length, plan.prompts, settings.images.size),
    )
    folder = effective.cache_folder(settings.folders)
    cached = _caches(settings.memory, sizes_of(plan, family), folder)
    return Writes(
        tuple(part for part in output if part.count),
        tuple(part for part in cached if part.count),
        tuple(dict.fromkeys((run.output_dir, run.kept_in))),
        folder,
        sum(path.stat().st_size for path in run.own_state.glob("*.pt")),
    )


def state_bytes(weights: int, optimizer: str, *, halved: bool = False) -> float:
    """Of a state: weights, and what the optimizer keeps of them; halved: weights of 16 bits."""
    kept = KEPT.get(optimizer, ADAM)
    return weights * (4 + kept) / (2 if halved else 1)


def _saves(saving: Saving, length: Length) -> tuple[int, int]:
    """LoRA files and state folders that lie there together in the end, or on the way."""
    by_epoch, by_step = length.turns(saving.save_every_n_epochs, saving.save_every_n_steps)

    def most(epochs: int | None, steps: int | None) -> int:
        # What is outdated goes when the next one is there; of steps, what is older than so many.
        of_epochs = min(by_epoch, epochs + 1) if epochs else by_epoch
        interval = saving.save_every_n_steps or 1
        return of_epochs + (min(by_step, steps // interval + 2) if steps else by_step)

    files = most(saving.save_last_n_epochs, saving.save_last_n_steps) + 1
    states = int(keeps_states(saving, at_end=True))
    if keeps_states(saving, at_end=False):
        states += most(
            saving.save_last_n_epochs_state or saving.save_last_n_epochs,
            saving.save_last_n_steps_state or saving.save_last_n_steps,
        )
    return files, states


def _pictures(
    samples: Samples, length: Length, prompts: Sequence[Prompt], size: Size
) -> Iterator[Part]:
    epochs = samples.sample_every_n_epochs
    due = sum(length.turns(epochs, None if epochs else samples.sample_every_n_steps, last=True))
    due += int(samples.sample_at_first and not length.done)
    width, height = size
    pixels = [(prompt.width or width) * (prompt.height or height) for prompt in prompts]
    if pixels:
        each = PICTURE_BYTES_PER_PIXEL * sum(pixels) / len(pixels)
        yield Part("sample picture", due * len(pixels), each)


def _caches(memory: Memory, sizes: CacheSizes, folder: Path) -> Iterator[Part]:
    """Of what is kept on the disk, those entries that do not lie there yet."""
    texts = memory.cache_text_encoder_outputs_to_disk and effective.caches_text_embeds(memory)
    for noun, entries, is_kept in (
        ("latent", sizes.latents, memory.cache_latents_to_disk),
        ("caption", sizes.captions, texts),
    ):
        if is_kept:
            missing = entries.count - _files_in(folder / f"{noun}s")
            yield Part(noun, max(0, missing), entries.each)


def _sum(parts: Iterable[Part]) -> float:
    return sum(part.count * part.each for part in parts)


def _told(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def _free_in(folder: Path) -> int:
    return free_at(folder / "any")


def _disk(folder: Path) -> int | None:
    """The file system on which a folder lies, or will lie."""
    for place in (folder, *folder.absolute().parents):
        with suppress(OSError):
            return place.stat().st_dev
    return None


def _files_in(folder: Path) -> int:
    with suppress(OSError):
        return sum(1 for _ in folder.iterdir())
    return 0
