"""The plan in words and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kit import catalog
from kit.dataset.images import TrainImage
from kit.dataset.subsets import Subset, shown
from kit.settings import Basic, effective

if TYPE_CHECKING:
    from kit.planning.value import Plan
    from kit.runs.differences import Unfinished

# What belongs to a data set as a whole, and stands in the plan anyway.
WHOLE_SET = frozenset({"train_batch_size", "resolution"})


def lines(plan: Plan) -> Iterator[str]:
    """The plan in words, a sentence a line."""
    training = [image for image in plan.images if not image.is_reg and not image.held_out]
    reg = sum(image.is_reg for image in plan.images)
    basic = plan.settings.basic
    uses = sum(plan.buckets.values())
    in_all = sum(image.repeats for image in training)
    yield from _subset_lines(plan.subsets, plan.images)
    yield f"{counted(len(training), 'image')}, with repeats {in_all}" + (
        f", and {counted(reg, 'regularisation image')}, balanced to {uses - in_all}" if reg else ""
    )
    yield f"{counted(len(plan.buckets), 'bucket')}: " + ", ".join(
        f"{width}x{height} ({count})" for (width, height), count in plan.buckets.items()
    )
    per_step = f" / {plan.gathered} gathered" if plan.gathered > 1 else ""
    yield (
        f"{counted(uses, 'image')} an epoch / batch {plan.batch_sizes} = "
        f"{counted(plan.batches_per_epoch, 'batch', 'batches')}{per_step} = "
        f"{counted(plan.steps_per_epoch, 'step')} an epoch"
    )
    if plan.processes > 1:
        yield _shared_line(plan.batch_sizes, plan.processes, basic.gradient_accumulation_steps)
        if plan.settings.machine.shard_base:
            yield _sharded_line(plan.processes)
    if plan.rate_factor != 1 and not plan.from_step:
        yield f"learning rates x {plan.rate_factor:.3g}: scale_lr_by_processes"
    yield (
        f"{counted(plan.epochs, 'epoch')}, {counted(plan.total_steps, 'step')} in all, "
        f"warm-up {counted(plan.warmup_steps, 'step')}"
    )
    if plan.text_encoder_stop and effective.encoder_learns(basic, plan.settings.rates):
        yield f"the text encoder learns until step {plan.text_encoder_stop}"
    yield from plan.validation.lines(len(training))
    yield optimizer_line(basic)
    yield f"seed {plan.seed}, LoRA {plan.run.kept_in / plan.run.file('').name}"
    read_by = catalog.read_by(plan.settings.flat()).sentence
    yield f"LoRA type {plan.settings.network.LoRA_type}: {read_by}"
    if plan.run.home:
        yield f"works in {plan.run.output_dir}, copied to {plan.run.home} as it goes"
    for name in effective.loggers(plan.settings.logs):
        row = catalog.LOGGERS[name]
        place = row.shown.format(logging_dir=plan.settings.logs.logging_dir)
        yield f"logged with {row.label}: {place}"
    if plan.writes:
        yield str(plan.writes)
    if plan.from_step:
        yield f"goes on at step {plan.from_step} of {plan.total_steps}"


def _shared_line(batch: str, processes: int, accumulated: int) -> str:
    """The global batch, and with what one process would do the same."""
    per_step = processes * accumulated
    whole = f" = {int(batch) * per_step}" if batch.isdecimal() else ""
    return (
        f"{processes} processes: global batch {batch} x {processes} processes x {accumulated} "
        f"accumulated{whole}, as one process with gradient_accumulation_steps = {per_step}"
    )


def _sharded_line(processes: int) -> str:
    part = "half" if processes == 2 else f"1/{processes}"
    return (
        f"{part} of the U-Net lies on each of {processes} processes (shard_base), which gather its "
        "blocks in every step"
    )


def _subset_lines(subsets: Sequence[Subset], images: Sequence[TrainImage]) -> Iterator[str]:
    for number, subset in enumerate(subsets):
        folder, basic = subset.settings.images, subset.settings.basic
        count = sum(image.subset == number and not image.held_out for image in images)
        kind = "regularisation image" if subset.is_reg else "image"
        ways = ", ".join(sorted(subset.given - WHOLE_SET))
        yield (
            f"{shown(subset)}: {counted(count, kind)} x {subset.num_repeats}, "
            f"{'up to ' * folder.enable_bucket}{'x'.join(map(str, folder.size))}, batch "
            f"{basic.train_batch_size}" + (f"; its own {ways}" if ways else "")
        )


def optimizer_line(basic: Basic) -> str:
    """The optimizer with its arguments as they were understood, its rates and the advised one."""
    row, args = effective.optimizer(basic), effective.optimizer_args(basic)
    given = ", ".join(f"{name} = {value}" for name, value in args.items())
    text = f"optimizer {basic.optimizer_type}" + (f" with {given}" if given else "")
    if effective.controls_lr(basic) == "rate":
        return f"{text}, which chooses its own rate"
    advised = f" (advised: {row.advised_lr:g})" if row.advised_lr else ""
    if own := effective.own_rates(basic):
        return f"{text}, rates: {own}{advised}"
    unet, words = effective.learning_rates(basic)
    return f"{text}, rates: U-Net {unet:g}, text encoder {words:g}{advised}"


def to_json(plan: Plan) -> str:
    """The plan's numbers, for programs."""
    numbers = {
        "images": sum(not image.is_reg and not image.held_out for image in plan.images),
        "held_out": len(plan.validation.held_out),
        "reg_images": sum(image.is_reg for image in plan.images),
        "buckets": {f"{w}x{h}": count for (w, h), count in plan.buckets.items()},
        "subsets": [shown(subset) for subset in plan.subsets],
        "batches_per_epoch": plan.batches_per_epoch,
        "processes": plan.processes,
        "batches_per_step": plan.gathered,
        "steps_per_epoch": plan.steps_per_epoch,
        "epochs": plan.epochs,
        "total_steps": plan.total_steps,
        "warmup_steps": plan.warmup_steps,
        "seed": plan.seed,
        "output": str(plan.run.kept_in / plan.run.file("").name),
        "from_step": plan.from_step,
        "saves": [step for step in range(1, plan.total_steps) if plan.save_due(step)],
        "samples": [step for step in range(plan.total_steps + 1) if plan.sample_due(step)],
        "validations": [s for s in range(plan.total_steps + 1) if plan.validation.is_due(s)],
        "unfinished": _unfinished(plan.run.unfinished, asks=plan.run.asks),
        "notices": list(plan.notices),
    }
    return json.dumps(numbers, indent=2)


def _unfinished(other: Unfinished | None, *, asks: bool) -> dict[str, Any] | None:
    """The unfinished run of that name which is made otherwise."""
    return {**asdict(other), "asks": asks} if other else None


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
