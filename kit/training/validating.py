"""Validation after a step: the LoRA's answers about held-out pictures, as an event.

Weights and random numbers of the training stay as they are, to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Generator

from kit.control import RunControl
from kit.errors import FAILURES, ProcessLost, in_a_line
from kit.events import Event, Noticed, Validated
from kit.optim.averaging import averaged
from kit.training.engine import make_room
from kit.training.preparation import Resources
from kit.training.soundness import require_finite_network
from kit.training.stills import Stills, Stopped
from kit.validation.answers import Answers
from kit.validation.meter import Reading, read
from kit.validation.patience import Patience
from kit.validation.questions import Question


def due_validation(
    control: RunControl, resources: Resources, step: int
) -> Generator[Event, None, bool]:
    """Measure what is due after this step; a request to stop is heard between two batches.

    What cannot be measured is told; the training goes on. Returns whether that was all: where a
    stop broke it off, it is owed.

    Raises: NotFinite where the weights are not.
    """
    stills = resources.stills
    if stills is None:
        return True
    require_finite_network(resources.network)
    try:
        with averaged(resources.optimization):
            event = _validated(stills, control, resources, step)
    except Stopped:
        return False
    except ProcessLost:
        raise
    except FAILURES as error:
        make_room(resources.engine, error, "validation needs the memory that graphs hold")
        yield Noticed(f"step {step}: the LoRA could not be validated: {in_a_line(error)}")
        return True
    yield event
    if resources.patience.is_lost(step, event.loss):
        control.stop()
        yield Noticed(_lost(resources.patience))
    return True


def _lost(patience: Patience) -> str:
    return (
        f"validation was best after step {patience.best_step} and has been no better for "
        f"{patience.since} validations, so the run ends here, as validation_patience asks; train "
        "again to go on, and kit choose says which file to keep"
    )


def _validated(stills: Stills, control: RunControl, resources: Resources, step: int) -> Validated:
    began, training_step = time.monotonic(), resources.training_step

    def is_stopped() -> bool:
        control.listen()  # also to who asks from a terminal
        return control.stop_requested

    def answers(asked: tuple[Question, ...]) -> Answers:
        return stills.answers(
            asked,
            training_step,
            resources.network,
            rows=training_step.rows or max(p.batch_size for p in resources.plan.layout.parts),
            is_stopped=is_stopped,
        )

    trained = answers(stills.beside)
    held_out = answers(stills.held_out) if stills.held_out else None
    prior = answers(stills.prior) if stills.prior else None
    main, reading = held_out or trained, read(held_out, trained) if held_out else Reading()
    return Validated(
        step,
        resources.plan.micro_steps(step).stop / resources.plan.batches_per_epoch,
        main.loss,
        main.base_loss,
        bands=main.bands,
        base_bands=main.base_bands,
        pictures=main.pictures,
        on="held-out" if held_out else "trained",
        trained_loss=trained.loss,
        trained_base_loss=trained.base_loss,
        prior_loss=prior.loss if prior else None,
        prior_base_loss=prior.base_loss if prior else None,
        loss_average=resources.losses.average,
        carried=reading.carried,
        gap=reading.gap,
        gaps=reading.gaps,
        auc=reading.auc,
        aucs=reading.aucs,
        word=reading.word,
        seconds=round(time.monotonic() - began, 3),
    )
