"""Requests, answered between two steps: sample now, save now, another learning rate, a pause.

None of it disturbs the training: pictures draw from generators of their own, and a changed rate is
kept with the state at once, so that a run that is broken off later goes on with it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

from kit.control import (
    LrRequest,
    Request,
    RunControl,
    SampleRequest,
    SaveRequest,
    UnreadRequest,
)
from kit.errors import FAILURES, ProcessLost, in_a_line
from kit.events import Event, Noticed, Paused, RateChanged, Resumed, Saved
from kit.optim.averaging import averaged
from kit.training.checkpoint import step_suffix
from kit.training.engine import make_room
from kit.training.preparation import Resources
from kit.training.soundness import Setback, require_finite_network


def due_samples(
    control: RunControl, resources: Resources, step: int
) -> Generator[Event, None, bool]:
    """Draw what is due after this step; a request to stop is heard after each picture.

    A picture that cannot be drawn or written is told; the training goes on. Returns whether that
    was all: where a stop broke it off, the rest is owed.
    """
    if not resources.plan.sample_due(step):
        return True
    try:
        return (yield from _unless_stopped(_drawn(resources, step), control))
    except ProcessLost:
        raise
    except (*FAILURES, Setback) as error:
        if step and isinstance(error, Setback):
            raise  # before the first step there is nothing to go back to
        make_room(resources.engine, error, "sample pictures need the memory that graphs hold")
        yield Noticed(f"step {step}: the samples could not be drawn: {in_a_line(error)}")
        return True


def _drawn(resources: Resources, step: int, **which: Any) -> Generator[Event, None, None]:
    """Sample pictures with the weights that a file would get.

    Raises: NotFinite where they are not.
    """
    with averaged(resources.optimization):
        require_finite_network(resources.network)
        yield from resources.samples.write(step, epoch=resources.plan.epoch_of(step), **which)


def _unless_stopped(
    job: Generator[Event, None, None], control: RunControl
) -> Generator[Event, None, bool]:
    """Whatever takes long, left after the event at which a stop is requested.

    Returns whether it was left to its end.
    """
    with closing(job):
        for event in job:
            yield event
            control.listen()
            if control.stop_requested:
                return False
    return True


def answer_requests(
    control: RunControl, resources: Resources, step: int
) -> Generator[Event, None, None]:
    """Answer the requests after this step, and rest as long as a pause is requested."""
    rests = False
    while True:
        control.listen()
        if control.is_asked:
            resources.ahead.drop()
        for request in control.take():
            yield from _unless_stopped(_one(request, resources, step), control)
        if not control.pause_requested:
            break
        if not rests:
            rests = True
            resources.checkpoint.save_state(step)
            yield Paused(step)
        control.wait_while_paused()
    if rests:
        yield Resumed(step)


def _one(request: Request, resources: Resources, step: int) -> Generator[Event, None, None]:
    """A request that cannot be met is told; the training goes on."""
    try:
        match request:
            case SampleRequest():
                yield from _sampled(request, resources, step)
            case SaveRequest():
                resources.checkpoint.save_state(step)
                saved = resources.checkpoint.save(step, step_suffix(step))
                yield Saved(saved.step, saved.epoch, saved.path, wished=True)
            case LrRequest():
                yield from _rates_changed(request, resources, step)
            case UnreadRequest():
                yield Noticed(request.text)
    except ProcessLost:
        raise
    except FAILURES as error:
        make_room(resources.engine, error, "sample pictures need the memory that graphs hold")
        yield Noticed(f"step {step}: the request could not be met: {in_a_line(error)}")


def _sampled(
    request: SampleRequest, resources: Resources, step: int
) -> Generator[Event, None, None]:
    prompts = dict(enumerate(resources.samples.prompts))
    if request.prompt is not None:
        prompts = {resources.samples.number_of(request.prompt): request.prompt}
    if not prompts:
        yield Noticed("Sample now: sample_prompts is blank, so there is nothing to draw")
    yield from _drawn(resources, step, prompts=prompts, wished=True)


def _rates_changed(
    request: LrRequest, resources: Resources, step: int
) -> Generator[Event, None, None]:
    groups = resources.optimization.optimizer.param_groups
    if resources.optimization.one_rate and request.group and len(groups) > 1:
        yield Noticed(
            f"The learning rate of {request.group} stays as it is: the optimizer learns all parts "
            "at one rate; change it for all"
        )
        return
    changed = {}
    for group in groups:
        if request.group in ("", group["name"]) and group["lr"] is not None:
            base = float(group.get("initial_lr", group["lr"]))
            if request.rate is not None and base > 0:
                group["factor"] = request.rate / base
            elif request.factor is not None:
                group["factor"] = group.get("factor", 1.0) * request.factor
            changed[group["name"]] = group.get("factor", 1.0)
    if resources.optimization.own_rate or not changed:
        yield Noticed(
            f"The learning rate of {request.group or 'all parts'} stays as it is: "
            + (
                "the optimizer chooses it by itself"
                if resources.optimization.own_rate
                else f"there are {', '.join(group['name'] for group in groups)}"
            )
        )
        return
    resources.checkpoint.owe("rates")
    resources.checkpoint.save_state(step, again=True)
    yield RateChanged(step, changed)
    resources.checkpoint.pay(step, "rates")
