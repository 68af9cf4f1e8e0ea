"""Settings and folders to a plan: every derived number, before anything heavy is loaded.

The plan is what the person reads and what the run obeys; both are the same value.
"""

from __future__ import annotations

import json
import math
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from kit import catalog
from kit.basemodel.magnitudes import follow_file
from kit.basemodel.mismatches import known_of, size_mismatches
from kit.basemodel.preflight import foreseen_refusals
from kit.catalog.lr_schedules import ScheduleParams
from kit.dataset.batches import Layout
from kit.dataset.buckets import BucketFit, Size
from kit.dataset.images import TrainImage
from kit.dataset.layout import bucket_rule, fit_all, lay_out_all
from kit.dataset.subset_images import scan_folders, scan_subsets
from kit.dataset.subsets import Subset, read_subsets, shown, subset_notices
from kit.dataset.unread import unread_notices
from kit.errors import SettingsError
from kit.exchange.additional import with_additional
from kit.exchange.foreign_lora import foreseen_conversion
from kit.hosts import host
from kit.planning.lora_size import stored_otherwise
from kit.planning.optimizer_line import optimizer_line
from kit.runs.fingerprint import fingerprint
from kit.runs.resume import ResumePoint, beyond_the_end, find_start
from kit.runs.run import Run, choose_run
from kit.settings import Settings, effective
from kit.settings.prompts import Prompt, parse_prompts
from kit.settings.rules import RunLength, length_notices, length_problems, notices, problems

# What belongs to a data set as a whole, and stands in the plan anyway.
WHOLE_SET = frozenset({"train_batch_size", "resolution"})


@dataclass(frozen=True)
class Plan:
    """What will happen. Steps are optimizer updates, batches are what the device sees at once."""

    settings: Settings  # with the seed that was drawn, and additional_parameters applied
    images: tuple[TrainImage, ...]
    fits: tuple[BucketFit, ...]  # one per image
    layout: Layout
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    prompts: tuple[Prompt, ...]
    run: Run
    notices: tuple[str, ...]
    start: ResumePoint | None = None  # the state that a new run goes on from
    subsets: tuple[Subset, ...] = ()  # of the dataset configuration, where there is one

    def settings_of(self, image: int) -> Settings:
        """What counts for an image, by index: its subset's settings, or the run's."""
        return self.subsets[self.images[image].subset].settings if self.subsets else self.settings

    @property
    def size(self) -> Size:
        """The largest resolution that is trained, as (width, height)."""
        sizes = [subset.settings.images.size for subset in self.subsets]
        return max(sizes or [self.settings.images.size], key=math.prod)

    @property
    def batch_sizes(self) -> str:
        """The batch size of every data set, in words."""
        return " and ".join(str(part.batch_size) for part in self.layout.parts)

    @property
    def seed(self) -> int:
        """The run's seed, drawn if it was blank."""
        return self.layout.seed

    @property
    def from_step(self) -> int:
        """The steps that are done already: by this run, or by the one that `resume` names."""
        return self.run.from_step or (self.start.step if self.start else 0)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one epoch over all buckets."""
        return self.layout.batches_per_epoch

    @property
    def epochs(self) -> int:
        """Epochs that are begun; the last may be cut short by max_train_steps."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    @property
    def schedule_params(self) -> ScheduleParams:
        """What the learning-rate schedule depends on, but for each group's own rate."""
        basic = self.settings.basic
        return ScheduleParams(
            total=self.total_steps,
            warmup=self.warmup_steps,
            cycles=basic.lr_scheduler_num_cycles or 1,
            power=basic.lr_scheduler_power or 1.0,
            least=effective.least_share(self.settings.basic),
            timescale=basic.lr_scheduler_timescale or 0,
            start=effective.start_share(self.settings.basic),
            decay=_share_or_steps(basic.lr_decay_steps or 0, self.total_steps),
            rules=effective.step_rules(self.settings.basic),
        )

    @property
    def text_encoder_stop(self) -> int:
        """The last step in which the text encoders learn; 0: they learn to the end."""
        share = self.settings.rates.stop_text_encoder_training
        return math.ceil(self.total_steps * share / 100)

    @cached_property
    def buckets(self) -> dict[Size, int]:
        """Images times repeats in every bucket, regularisation included."""
        counts: Counter[Size] = Counter()
        for part in self.layout.parts:
            for size, images in part.buckets:
                counts[size] += sum(count for _, count in images)
        return dict(counts)

    def epoch_of(self, step: int) -> int:
        """The epoch, from 1, that a finished step (from 1) belongs to."""
        return math.ceil(step / self.steps_per_epoch)

    def ends_epoch(self, step: int) -> bool:
        """The step is the last of its epoch."""
        return step % self.steps_per_epoch == 0

    def micro_steps(self, step: int) -> range:
        """The micro-steps (batches over the whole run, from 0) that make up a step (from 1)."""
        gathered = self.settings.basic.gradient_accumulation_steps
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        first = epoch * self.batches_per_epoch + place * gathered
        return range(first, min(first + gathered, (epoch + 1) * self.batches_per_epoch))

    def step_of(self, number: int) -> int:
        """The step, from 1, that a micro-step (from 0) belongs to."""
        epoch, within = divmod(number, self.batches_per_epoch)
        accumulated = self.settings.basic.gradient_accumulation_steps
        return epoch * self.steps_per_epoch + within // accumulated + 1

    def save_due(self, step: int) -> str:
        """The words "epoch" or "step" where a LoRA file is due after this step, otherwise "".

        The end of the run is not counted: its file is the final one.
        """
        saving = self.settings.saving
        if step >= self.total_steps:
            return ""
        if self.ends_epoch(step) and _every(self.epoch_of(step), saving.save_every_n_epochs):
            return "epoch"
        return "step" if _every(step, saving.save_every_n_steps) else ""

    def sample_due(self, step: int) -> bool:
        """Sample pictures are due after this step (0: before the first)."""
        samples = self.settings.samples
        if not self.prompts:
            return False
        if step == 0:
            return samples.sample_at_first
        if samples.sample_every_n_epochs:
            return self.ends_epoch(step) and _every(
                self.epoch_of(step), samples.sample_every_n_epochs
            )
        return _every(step, samples.sample_every_n_steps)

    def lines(self) -> Iterator[str]:
        """The plan in words, a sentence a line."""
        training = [image for image in self.images if not image.is_reg]
        reg = len(self.images) - len(training)
        basic = self.settings.basic
        uses = sum(self.buckets.values())
        in_all = sum(image.repeats for image in training)
        yield from self._subset_lines()
        yield f"{_counted(len(training), 'image')}, with repeats {in_all}" + (
            f", and {_counted(reg, 'regularisation image')}, balanced to {uses - in_all}"
            if reg
            else ""
        )
        yield f"{_counted(len(self.buckets), 'bucket')}: " + ", ".join(
            f"{width}x{height} ({count})" for (width, height), count in self.buckets.items()
        )
        gathered = basic.gradient_accumulation_steps
        per_step = f" / {gathered} gathered" if gathered > 1 else ""
        yield (
            f"{_counted(uses, 'image')} an epoch / batch {self.batch_sizes} = "
            f"{_counted(self.batches_per_epoch, 'batch', 'batches')}{per_step} = "
            f"{_counted(self.steps_per_epoch, 'step')} an epoch"
        )
        yield (
            f"{_counted(self.epochs, 'epoch')}, {_counted(self.total_steps, 'step')} in all, "
            f"warm-up {_counted(self.warmup_steps, 'step')}"
        )
        if self.text_encoder_stop and effective.encoder_learns(basic, self.settings.rates):
            yield f"the text encoder learns until step {self.text_encoder_stop}"
        yield optimizer_line(basic)
        yield f"seed {self.seed}, LoRA {self.run.kept_in / self.run.file('').name}"
        read_by = catalog.read_by(self.settings.flat()).sentence
        yield f"LoRA type {self.settings.network.LoRA_type}: {read_by}"
        if self.run.home:
            yield f"works in {self.run.output_dir}, copied to {self.run.home} as it goes"
        for name in effective.loggers(self.settings.logs):
            row = catalog.LOGGERS[name]
            shown = row.shown.format(logging_dir=self.settings.logs.logging_dir)
            yield f"logged with {row.label}: {shown}"
        if self.from_step:
            yield f"goes on at step {self.from_step} of {self.total_steps}"

    def _subset_lines(self) -> Iterator[str]:
        for number, subset in enumerate(self.subsets):
            images, basic = subset.settings.images, subset.settings.basic
            count = sum(image.subset == number for image in self.images)
            kind = "regularisation image" if subset.is_reg else "image"
            ways = ", ".join(sorted(subset.given - WHOLE_SET))
            yield (
                f"{shown(subset)}: {_counted(count, kind)} x {subset.num_repeats}, "
                f"{'up to ' * images.enable_bucket}{'x'.join(map(str, images.size))}, batch "
                f"{basic.train_batch_size}" + (f"; its own {ways}" if ways else "")
            )

    def __str__(self) -> str:
        """The plan in words, notices marked with an exclamation mark."""
        return "\n".join([*self.lines(), *(f"! {notice}" for notice in self.notices)])

    def to_json(self) -> str:
        """The plan's numbers, for programs."""
        numbers = {
            "images": sum(not image.is_reg for image in self.images),
            "reg_images": sum(image.is_reg for image in self.images),
            "buckets": {f"{w}x{h}": count for (w, h), count in self.buckets.items()},
            "subsets": [shown(subset) for subset in self.subsets],
            "batches_per_epoch": self.batches_per_epoch,
            "steps_per_epoch": self.steps_per_epoch,
            "epochs": self.epochs,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "seed": self.seed,
            "output": str(self.run.kept_in / self.run.file("").name),
            "from_step": self.from_step,
            "saves": [step for step in range(1, self.total_steps) if self.save_due(step)],
            "samples": [step for step in range(self.total_steps + 1) if self.sample_due(step)],
            "notices": list(self.notices),
        }
        return json.dumps(numbers, indent=2)


def plan(settings: Settings) -> Plan:
    """Decide everything that follows from the settings and the folders.

    Raises: SettingsError with all contradictions at once; DatasetError for folders and images.
    """
    settings, wrong, overridden = with_additional(settings)
    if wrong:
        raise SettingsError([*wrong, *problems(settings)])
    settings, of_file = follow_file(settings)
    subsets = read_subsets(settings)
    if not subsets and (found := problems(settings)):
        raise SettingsError(found)
    dataset = (
        scan_subsets(subsets)
        if subsets
        else scan_folders(settings.folders, settings.images, masked=settings.noise.masked_loss)
    )
    prompts = parse_prompts(settings.samples.sample_prompts)
    start = find_start(settings.saving.resume, on_hub=settings.hub.resume_from_huggingface)
    here = host()
    run = choose_run(
        settings.folders.output_dir,
        settings.folders.output_name,
        ending=settings.saving.save_model_as,
        fingerprint=fingerprint(settings, dataset.images, subsets),
        seed=settings.basic.seed or 0,
        workplace=here.scratch if here.is_slow(settings.folders.output_dir) else None,
    )
    seed = settings.basic.seed or run.seed or (start.seed if start else 0)
    seed = seed or secrets.randbelow(2**32 - 1) + 1
    settings = settings.replace(seed=seed, output_name=run.name)
    ways = [subset.settings for subset in subsets] or [settings]  # by TrainImage.subset
    rules = [bucket_rule(way.images) for way in ways]
    fits = fit_all(dataset.images, [rules[image.subset] for image in dataset.images])
    size = settings.basic.train_batch_size
    layout = lay_out_all(dataset.images, fits, subsets, batch_size=size, seed=seed)
    per_epoch = math.ceil(layout.batches_per_epoch / settings.basic.gradient_accumulation_steps)
    total = total_steps(settings, per_epoch)
    wrong = length_problems(settings, RunLength(total))
    if start and (text := beyond_the_end(start, total)):
        wrong.append(text)
    if wrong:
        raise SettingsError(wrong)
    return Plan(
        settings=settings,
        images=dataset.images,
        fits=fits,
        layout=layout,
        steps_per_epoch=per_epoch,
        total_steps=total,
        warmup_steps=warmup_steps(settings, total),
        prompts=prompts,
        run=run,
        start=start,
        notices=(
            *dataset.notices,
            *unread_notices(dataset.images, ways, subsets),
            *overridden,
            *of_file,
            *(subset_notices(settings, subsets) if subsets else notices(settings)),
            *_noticed(settings, ways, dataset.images, fits, run, total),
        ),
        subsets=subsets,
    )


def total_steps(settings: Settings, steps_per_epoch: int) -> int:
    """Max train epoch before Max train steps before Epoch."""
    basic = settings.basic
    if basic.max_train_epochs:
        return basic.max_train_epochs * steps_per_epoch
    return basic.max_train_steps or basic.epoch * steps_per_epoch


def warmup_steps(settings: Settings, total: int) -> int:
    """The steps given, or the share of the total, rounded down; 0 for constant."""
    basic = settings.basic
    if not effective.warms_up(basic, settings.rates):
        return 0
    if basic.lr_warmup_steps is not None:
        return min(total, basic.lr_warmup_steps)
    return int(total * basic.lr_warmup / 100)  # in this order 29 % of 100 is 29, not 28.999


def _share_or_steps(value: float, total: int) -> int:
    """A number of steps, or below 1 a share of them."""
    return int(value * total) if value < 1 else int(value)


def _counted(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def _every(count: int, interval: int | None) -> bool:
    return bool(interval) and count % int(interval or 1) == 0


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
    total: int,
) -> Iterator[str]:
    if not settings.model.pretrained_model_name_or_path:
        yield "pretrained_model_name_or_path is blank: choose a base model before training"
    yield from _unfit_sizes(ways)
    yield from foreseen_refusals(settings)
    yield from foreseen_conversion(settings.network.network_weights)
    yield from stored_otherwise(settings)
    if run.renamed_from:
        yield (
            f"{run.renamed_from} is already there and is not overwritten: this run is named "
            f"{run.name}"
        )
    strongly_cut = [
        image.path.name
        for image, place in zip(images, fits, strict=True)
        if _cut_share(place) > 0.25
    ]
    if strongly_cut:
        more = f" and {len(strongly_cut) - 5} more" if len(strongly_cut) > 5 else ""
        yield f"more than a quarter is cut away from {', '.join(strongly_cut[:5])}{more}"
    if not effective.caches_latents(settings.memory) and settings.memory.vae_batch_size != 1:
        yield "vae_batch_size has no effect: latents are not cached"
    decay = _share_or_steps(settings.basic.lr_decay_steps or 0, total)
    yield from length_notices(settings, RunLength(total, decay))
    per_bucket = Counter(place.bucket for place in fits)
    single_image = sum(1 for count in per_bucket.values() if count == 1)
    if settings.basic.train_batch_size > 1 and single_image > len(per_bucket) / 2 > 1:
        yield (
            f"{single_image} of {len(per_bucket)} buckets hold a single image, so their batches "
            "repeat it; fewer buckets (a larger bucket_reso_steps) mix more"
        )


def _cut_share(place: BucketFit) -> float:
    (width, height), (kept_width, kept_height) = place.resized, place.bucket
    return 1 - kept_width * kept_height / (width * height)
