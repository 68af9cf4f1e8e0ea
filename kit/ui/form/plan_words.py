"""A plan's length in a sentence that is read at a glance: the bar's."""

from __future__ import annotations

from dataclasses import dataclass

from kit.planning import Plan
from kit.planning.words import counted
from kit.ui.look import escaped


@dataclass(frozen=True)
class Length:
    """What the number of steps is made of."""

    repeats: tuple[int, ...]  # of each training image
    uses: int  # of an epoch, regularisation images included
    batch: str  # its size, or the sizes of several data sets
    at_once: int  # images of an optimizer step
    gathered: int
    has_several_sets: bool
    steps_per_epoch: int
    total: int
    epochs: int
    buckets: int
    from_step: int  # of the run that goes on; 0: a new one


def length_of(plan: Plan) -> Length:
    """The numbers of a plan that its sentence tells."""
    gathered = plan.gathered
    return Length(
        repeats=tuple(
            image.repeats for image in plan.images if not image.is_reg and not image.held_out
        ),
        uses=sum(plan.buckets.values()),
        batch=plan.batch_sizes,
        at_once=plan.layout.batch_size * gathered,
        gathered=gathered,
        has_several_sets=bool(plan.layout.more),
        steps_per_epoch=plan.steps_per_epoch,
        total=plan.total_steps,
        epochs=plan.epochs,
        buckets=len(plan.buckets),
        from_step=plan.run.from_step if plan.run.resumes else 0,
    )


def sentence(length: Length, forecast: str = "") -> str:
    """Length, what it means for each image, and what it will take, as HTML.

    No seed: a blank one is drawn anew at each plan, and the line would never rest.
    """
    onward = f"; goes on at step {length.from_step}" if length.from_step else ""
    more = f" {escaped(forecast[:1].upper() + forecast[1:])}." if forecast else ""
    return (
        f"<div>{escaped(product(length))} <b>{counted(length.total, 'step')}</b>{onward}; "
        f"{escaped(views(length))}.{more}</div>"
    )


def product(length: Length) -> str:
    """How the number of steps comes about: `40 images x 10 repeats / batch 4 x 8 epochs =`.

    A last epoch that is cut short gives no product: `... = 100 steps an epoch; in epoch 3, after`.
    """
    text = f"{_uses(length)} / batch {length.batch}"
    if length.gathered > 1:
        text += f" / {length.gathered} gathered"
    each = counted(length.steps_per_epoch, "step")
    is_rounded = length.has_several_sets or length.uses != length.steps_per_epoch * length.at_once
    if is_rounded:
        text += ", each bucket rounded up"
    if length.total % length.steps_per_epoch:
        return f"{text} = {each} an epoch; it ends in epoch {length.epochs}, after"
    text = f"({text} = {each})" if is_rounded else text
    return f"{text} x {counted(length.epochs, 'epoch')} ="


def _uses(length: Length) -> str:
    """The images of an epoch with their repeats."""
    in_all = sum(length.repeats)
    text = counted(len(length.repeats), "image")
    if len(set(length.repeats)) == 1:
        text += f" x {counted(length.repeats[0], 'repeat')}"
    else:
        text += f" with repeats {in_all}"
    reg = length.uses - in_all
    return f"({text} + {reg} regularisation)" if reg else text


def views(length: Length) -> str:
    """How often each image is seen, and in how many buckets they are."""
    share = length.total / length.steps_per_epoch
    seen = sorted({round(repeats * share) for repeats in length.repeats})
    times = f"{seen[0]}" if len(seen) == 1 else f"{seen[0]} to {seen[-1]}"
    return f"each image is seen {times} times, in {counted(length.buckets, 'bucket')}"
