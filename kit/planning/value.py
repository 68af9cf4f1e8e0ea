"""The plan of a run as a value: what will happen, and what follows from its numbers alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from kit.catalog.lr_schedules import ScheduleParams
from kit.dataset.batches import Layout
from kit.dataset.buckets import BucketFit, Size
from kit.dataset.images import TrainImage
from kit.dataset.subsets import Subset
from kit.planning import steps, words
from kit.planning.writes import Writes
from kit.runs.made_of import MadeOf
from kit.runs.resume import ResumePoint
from kit.runs.run import Run
from kit.settings import Settings, effective
from kit.settings.prompts import Prompt
from kit.validation.schedule import Schedule


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
    made_of: MadeOf = field(default_factory=MadeOf)
    start: ResumePoint | None = None  # the state that a new run goes on from
    subsets: tuple[Subset, ...] = ()  # of the dataset configuration, where there is one
    writes: Writes | None = None  # where the size of the network is known beforehand
    validation: Schedule = field(default_factory=Schedule)  # when what is measured
    processes: int = 1  # that share the batches of each step

    def settings_of(self, image: int) -> Settings:
        """What counts for an image, by index: its subset's settings, or the run's."""
        return self.subsets[self.images[image].subset].settings if self.subsets else self.settings

    @property
    def size(self) -> Size:
        """The largest resolution that is trained, as (width, height)."""
        sizes = [subset.settings.images.size for subset in self.subsets]
        return max(sizes or [self.settings.images.size], key=math.prod)

    @property
    def learned_from(self) -> int:
        """How many pictures it learns from; neither regularisation images nor those held out."""
        return sum(not image.is_reg and not image.held_out for image in self.images)

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
            decay=steps.share_or_steps(basic.lr_decay_steps or 0, self.total_steps),
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

    def epochs_after(self, step: int) -> float:
        """The epochs that are done after this step, with the share of the present one."""
        return self.micro_steps(step).stop / self.batches_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """The step is the last of its epoch."""
        return step % self.steps_per_epoch == 0

    def micro_steps(self, step: int) -> range:
        """The micro-steps (batches over the whole run, from 0) that make up a step (from 1)."""
        return steps.micro_steps(step, self.batches_per_epoch, self.gathered)

    def step_of(self, number: int) -> int:
        """The step, from 1, that a micro-step (from 0) belongs to."""
        return steps.step_of(number, self.batches_per_epoch, self.gathered)

    @property
    def gathered(self) -> int:
        """The batches that a step learns from, of all processes together."""
        return steps.gathered(self.settings.basic, self.processes)

    @property
    def rate_factor(self) -> float:
        """What a new run's learning rates are multiplied by, for the sake of the global batch."""
        asked = self.settings.machine.scale_lr_by_processes
        return math.sqrt(self.processes) if asked else 1.0

    def save_due(self, step: int) -> str:
        """The words "epoch" or "step" where a LoRA file is due after this step, otherwise "".

        The end of the run is not counted: its file is the final one.
        """
        saving = self.settings.saving
        if step >= self.total_steps:
            return ""
        if self.ends_epoch(step) and steps.every(self.epoch_of(step), saving.save_every_n_epochs):
            return "epoch"
        return "step" if steps.every(step, saving.save_every_n_steps) else ""

    def sample_due(self, step: int) -> bool:
        """Sample pictures are due after this step (0: before the first)."""
        samples = self.settings.samples
        if not self.prompts:
            return False
        if step == 0:
            return samples.sample_at_first
        if samples.sample_every_n_epochs:
            return self.ends_epoch(step) and steps.every(
                self.epoch_of(step), samples.sample_every_n_epochs
            )
        return steps.every(step, samples.sample_every_n_steps)

    def due_after(self, step: int) -> tuple[str, ...]:
        """What is due after a step, in the words of a run's record, in this order."""
        due = {
            "validation": self.validation.is_due(step),
            "samples": self.sample_due(step),
            "files": bool(self.save_due(step)),
        }
        return tuple(name for name, is_due in due.items() if is_due)

    def lines(self) -> Iterator[str]:
        """The plan in words, a sentence a line."""
        return words.lines(self)

    def __str__(self) -> str:
        """The plan in words, notices marked with an exclamation mark."""
        return "\n".join([*self.lines(), *(f"! {notice}" for notice in self.notices)])

    def to_json(self) -> str:
        """The plan's numbers, for programs."""
        return words.to_json(self)
