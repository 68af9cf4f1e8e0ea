"""Settings and folders to a plan: every derived number, before anything heavy is loaded.

The plan is what the person reads and what the run obeys; both are the same value.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kit.basemodel.magnitudes import follow_file
from kit.basemodel.mismatches import known_of, of_other_families, size_mismatches, unfit_losses
from kit.basemodel.preflight import foreseen_refusals
from kit.dataset.batches import Layout
from kit.dataset.buckets import BucketFit
from kit.dataset.images import Scan, TrainImage
from kit.dataset.layout import bucket_rule, fit_all, lay_out_all
from kit.dataset.subset_images import scan_folders, scan_subsets
from kit.dataset.subsets import read_subsets, subset_notices
from kit.dataset.unread import unread_notices
from kit.errors import SettingsError
from kit.exchange.additional import with_additional
from kit.exchange.foreign_lora import foreseen_conversion
from kit.hosts import host
from kit.launching.command import idle_switch, processes_for
from kit.planning.lora_size import stored_otherwise
from kit.planning.steps import (
    gathered,
    share_or_steps,
    steps_per_epoch,
    total_steps,
    warmup_steps,
)
from kit.planning.value import Plan
from kit.planning.writes import foreseen, unwritable
from kit.processes import here
from kit.runs.fingerprint import fingerprint
from kit.runs.made_of import made_of
from kit.runs.resume import beyond_the_end, find_start
from kit.runs.run import Answer, Run, choose_run
from kit.runs.unfinished import is_past, told_of_unfinished
from kit.settings import Basic, Captions, Folders, Images, Noise, Settings, Validation
from kit.settings.prompts import parse_prompts
from kit.settings.rules import RunLength, length_notices, length_problems, notices, problems
from kit.validation.holding_out import hold_out
from kit.validation.schedule import Length, Schedule, schedule


def plan(settings: Settings, *, unfinished: Answer = "ask", processes: int | None = None) -> Plan:
    """Decide everything that follows from the settings and the folders.

    unfinished: what to do with a run of that name that is not finished and whose pictures, captions
    or rounding are others now: "go on" with it, "begin anew" beside it, or "ask", which plans a new
    one that is not trained before a person has decided.
    processes: how many will train it together; None: as many as a launcher has started, or where
    none has, as num_processes or multi_gpu asks for.

    Raises: SettingsError with all contradictions at once; DatasetError for folders and images.
    """
    if processes is None:
        started, asked = here().count, settings.machine.num_processes
        if asked == 1 and settings.machine.multi_gpu:  # as many as there are GPUs
            asked = processes_for(settings.machine) or 1
        processes = started if started > 1 else asked
    decided = _decided(settings, unfinished, processes)
    if wrong := list(unwritable(decided.run)):
        raise SettingsError(wrong)
    writes = foreseen(decided)
    if writes is None:
        return decided
    if wrong := list(writes.problems()):
        raise SettingsError(wrong)
    return replace(decided, writes=writes, notices=(*decided.notices, *writes.notices()))


def _decided(settings: Settings, unfinished: Answer, processes: int) -> Plan:
    """The plan, but for the room that it needs."""
    settings, wrong, overridden = with_additional(settings)
    if wrong:
        raise SettingsError([*wrong, *problems(settings)])
    settings, of_file = follow_file(settings)
    subsets = read_subsets(settings)
    if not subsets and (found := problems(settings)):
        raise SettingsError(found)
    ways = [subset.settings for subset in subsets] or [settings]  # by TrainImage.subset
    sections = settings.folders, settings.images, settings.captions, settings.noise
    dataset = scan_subsets(subsets) if subsets else _scanned(*sections)
    images, held_out = hold_out(dataset.images, [way.validation for way in ways])
    start = find_start(settings.saving.resume, on_hub=settings.hub.resume_from_huggingface)
    whole = settings.model_copy(update={"basic": _as_one_process(settings.basic, processes)})
    run, made = choose_run(
        settings.folders.output_dir,
        settings.folders.output_name,
        ending=settings.saving.save_model_as,
        fingerprint=fingerprint(whole, images, subsets),
        made_of=made_of(whole.flat(), settings.captions, images, subsets, processes=processes),
        seed=settings.basic.seed or 0,
        workplace=_workplace(settings.folders.output_dir),
        answer=unfinished,
    )
    seed = settings.basic.seed or run.seed or (start.seed if start else 0) or _drawn_seed()
    settings = settings.replace(seed=seed, output_name=run.name)
    basic, ways = settings.basic, ways if subsets else [settings]
    fits = _fitted(images, ways)
    layout = lay_out_all(images, fits, subsets, batch_size=basic.train_batch_size, seed=seed)
    per_epoch = steps_per_epoch(layout.batches_per_epoch, gathered(basic, processes))
    total = (length := _length_of(basic, per_epoch)).total
    wrong = [*length_problems(settings, length), *_too_many(processes, layout)]
    wrong += [t for t in (start and beyond_the_end(start, total), is_past(run, total)) if t]
    if wrong:
        raise SettingsError(wrong)
    return Plan(
        settings=settings,
        images=images,
        fits=fits,
        layout=layout,
        steps_per_epoch=per_epoch,
        total_steps=total,
        warmup_steps=warmup_steps(basic, settings.rates, total),
        prompts=parse_prompts(settings.samples.sample_prompts),
        run=run,
        made_of=made,
        start=start,
        notices=(
            *dataset.notices,
            *held_out,
            *unread_notices(images, ways, subsets),
            *overridden,
            *of_file,
            *(subset_notices(settings, subsets) if subsets else notices(settings)),
            *_noticed(settings, ways, images, fits, run, length),
        ),
        subsets=subsets,
        validation=_asked(images, ways, settings.validation, Length.of(layout, total, per_epoch)),
        processes=processes,
    )


def _length_of(basic: Basic, per_epoch: int) -> RunLength:
    total = total_steps(basic, per_epoch)
    decay = share_or_steps(basic.lr_decay_steps or 0, total)
    return RunLength(total, decay, math.ceil(total / per_epoch))


def _asked(
    images: Sequence[TrainImage], ways: Sequence[Settings], validation: Validation, length: Length
) -> Schedule:
    """What is validated; an inpainting model draws no picture of its own to be asked about."""
    captions = [] if ways[0].model.train_inpainting else [way.captions for way in ways]
    return schedule(images, validation, length, captions)


def _as_one_process(basic: Basic, processes: int) -> Basic:
    """What one process would have to gather for the same steps: a run goes on on any number."""
    all_together = gathered(basic, processes)  # beyond the setting's bounds, too
    return basic.model_copy(update={"gradient_accumulation_steps": all_together})


def _too_many(processes: int, layout: Layout) -> list[str]:
    """More processes than an epoch has batches: some would never have one."""
    batches = layout.batches_per_epoch
    if processes <= batches:
        return []
    return [
        f"num_processes: {processes} processes cannot share an epoch of {batches} batches: each "
        f"step is of one epoch, so {processes - batches} would never have work; at most {batches} "
        "can, or more with a smaller train_batch_size or more repeats"
    ]


def _fitted(images: tuple[TrainImage, ...], ways: Sequence[Settings]) -> tuple[BucketFit, ...]:
    """Every image into its bucket, by the rule of its data set."""
    rules = [bucket_rule(way.images) for way in ways]
    return fit_all(images, [rules[image.subset] for image in images])


def _scanned(folders: Folders, images: Images, captions: Captions, noise: Noise) -> Scan:
    """The images of the folders that the settings name, where no dataset configuration is."""
    return scan_folders(folders, images, captions, masked=noise.masked_loss)


def _workplace(output_dir: str) -> Path | None:
    """Where a run works whose output lies on a slow drive."""
    machine = host()
    return machine.scratch if machine.is_slow(output_dir) else None


def _drawn_seed() -> int:
    """Of 32 bits and not 0, which stands for a blank one."""
    return secrets.randbelow(2**32 - 1) + 1


def _unfit_sizes(ways: Sequence[Settings]) -> Iterator[str]:
    if known := known_of(ways[0].model):
        for size in dict.fromkeys(way.images.size for way in ways):
            yield from (each.text for each in size_mismatches(known, size))


def _noticed(
    settings: Settings,
    ways: Sequence[Settings],
    images: tuple[TrainImage, ...],
    fits: tuple[BucketFit, ...],
    run: Run,
    length: RunLength,
) -> Iterator[str]:
    if not settings.model.pretrained_model_name_or_path:
        yield "pretrained_model_name_or_path is blank: choose a base model before training"
    yield from _unfit_sizes(ways)
    if (known := known_of(settings.model)) is not None:
        yield from unfit_losses(known, settings.model, settings.noise)
        yield from of_other_families(known, settings.changed())
    yield from idle_switch(settings.machine)
    yield from foreseen_refusals(settings)
    yield from foreseen_conversion(settings.network.network_weights)
    yield from stored_otherwise(settings)
    if run.renamed_from and not run.resumes:
        yield (
            f"{run.renamed_from} is already there and is not overwritten: this run is named "
            f"{run.name}"
        )
    yield from told_of_unfinished(run)
    strongly_cut = [
        image.path.name
        for image, place in zip(images, fits, strict=True)
        if _cut_share(place) > 0.25
    ]
    if strongly_cut:
        more = f" and {len(strongly_cut) - 5} more" if len(strongly_cut) > 5 else ""
        yield f"more than a quarter is cut away from {', '.join(strongly_cut[:5])}{more}"
    yield from length_notices(settings, length)
    placed = zip(images, fits, strict=True)
    per_bucket = Counter(place.bucket for image, place in placed if not image.held_out)
    single_image = sum(1 for count in per_bucket.values() if count == 1)
    if settings.basic.train_batch_size > 1 and single_image > len(per_bucket) / 2 > 1:
        yield (
            f"{single_image} of {len(per_bucket)} buckets hold a single image, so their batches "
            "repeat it; fewer buckets (a larger bucket_reso_steps) mix more"
        )


def _cut_share(place: BucketFit) -> float:
    (width, height), (kept_width, kept_height) = place.resized, place.bucket
    return 1 - kept_width * kept_height / (width * height)
