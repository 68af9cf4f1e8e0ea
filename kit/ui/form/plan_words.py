"""A plan's length in a sentence that is read at a glance, and its notices."""

from __future__ import annotations

from collections.abc import Sequence

from kit.planning import Plan
from kit.ui.form.problem_texts import as_list
from kit.ui.look import escaped


def plan_words(plan: Plan, more: Sequence[str] = ()) -> str:
    """The sentence, what it means for each image, and the notices, as HTML.

    more: notices of the form's own.

    No seed: a blank one is drawn anew at each plan, and the line would never rest.
    """
    onward = f"; goes on at step {plan.run.from_step}" if plan.run.resumes else ""
    return (
        f"<div>{escaped(length(plan))} <b>{_counted(plan.total_steps, 'step')}</b>{onward}; "
        f"{escaped(views(plan))}.</div>{as_list([*plan.notices, *more])}"
    )


def length(plan: Plan) -> str:
    """How the number of steps comes about: `40 images x 10 repeats / batch 4 x 8 epochs =`.

    A last epoch that is cut short gives no product: `... = 100 steps an epoch; in epoch 3, after`.
    """
    text, uses = _uses(plan)
    basic = plan.settings.basic
    at_once = plan.layout.batch_size * basic.gradient_accumulation_steps
    text += f" / batch {plan.batch_sizes}"
    if basic.gradient_accumulation_steps > 1:
        text += f" / {basic.gradient_accumulation_steps} gathered"
    each = _counted(plan.steps_per_epoch, "step")
    is_rounded = plan.layout.more or uses != plan.steps_per_epoch * at_once
    if is_rounded:
        text += ", each bucket rounded up"
    if plan.total_steps % plan.steps_per_epoch:
        return f"{text} = {each} an epoch; it ends in epoch {plan.epochs}, after"
    text = f"({text} = {each})" if is_rounded else text
    return f"{text} x {_counted(plan.epochs, 'epoch')} ="


def _uses(plan: Plan) -> tuple[str, int]:
    """The images of an epoch with their repeats, in words and as a number."""
    training = [image for image in plan.images if not image.is_reg]
    repeats = {image.repeats for image in training}
    in_all, uses = sum(image.repeats for image in training), sum(plan.buckets.values())
    text = _counted(len(training), "image")
    if len(repeats) == 1:
        text += f" x {_counted(repeats.pop(), 'repeat')}"
    else:
        text += f" with repeats {in_all}"
    return (f"({text} + {uses - in_all} regularisation)" if uses != in_all else text), uses


def views(plan: Plan) -> str:
    """How often each image is seen, and in how many buckets they are."""
    share = plan.total_steps / plan.steps_per_epoch
    seen = sorted({round(i.repeats * share) for i in plan.images if not i.is_reg})
    times = f"{seen[0]}" if len(seen) == 1 else f"{seen[0]} to {seen[-1]}"
    return f"each image is seen {times} times, in {_counted(len(plan.buckets), 'bucket')}"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
