"""Training: a plan in, events out. The loop is this page.

    for event in train(plan):
        print(event)

Leaving early is safe: the state of the last whole step is kept, and the same settings go on from
there with the same data, to the same weights as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing

from kit.control import RunControl, stop_on_interrupt
from kit.devices import at_work, peak_megabytes
from kit.events import Began, Event, Finished, Noticed, Stepped
from kit.optim.making import rates_of
from kit.planning import Plan
from kit.runs import run
from kit.runs.mirroring import Mirror, mirrored
from kit.training.checkpoint import Checkpoint, step_suffix
from kit.training.requests import answer_requests, due_samples
from kit.training.step import Workshop, prepare


def train(plan: Plan, control: RunControl | None = None) -> Generator[Event, None, None]:
    """Train one LoRA, telling what happens as it happens.

    The run is over when the iteration is. `control` is read between two steps: to stop, to rest, to
    draw, to save, to change the learning rate. Ctrl-C and the notebook's stop sign ask to stop.

    Raises: ModelError, DatasetError, DeviceError, LoraFileError, OutputError, Diverged; each says
    what to change.
    """
    control = control or RunControl()
    run.begin(plan.run, seed=plan.seed, settings_toml=plan.settings.to_toml())
    yield Began(str(plan.run.dir), plan.run.name, plan.total_steps)
    for text in plan.notices:
        yield Noticed(text)

    with (
        stop_on_interrupt(control),
        at_work(plan.settings.machine),
        mirrored(plan.run) as mirror,
    ):
        shop = yield from _prepared(plan, control)  # model, caches, network, optimizer, state
        if shop is None:
            yield Finished(plan.run.from_step, "asked to stop")
            return
        step = done = shop.checkpoint.state_step
        try:
            if step == 0:
                yield from due_samples(control, plan, shop, 0)
                yield from shop.notices()

            for step in range(done + 1, plan.total_steps + 1):
                if control.stop_requested:
                    break
                stepped = _step(plan, shop, step)
                done = step
                yield stepped
                yield from due_samples(control, plan, shop, step)
                if saved := shop.checkpoint.save_due(step):
                    shop.checkpoint.save_state(step)
                    yield saved
                    yield from shop.checkpoint.state_beside(saved)
                yield from mirror.notices()
                yield from answer_requests(control, plan, shop, step)
                yield from shop.notices()
                if not control.stop_requested:
                    shop.checkpoint.save_state_if_cheap(step)

            yield from _ended(plan, shop.checkpoint, mirror, done)
        except GeneratorExit:  # whoever iterated has left: a whole step lies behind us
            shop.checkpoint.save_state(done)
            raise
        finally:
            shop.close()


def _step(plan: Plan, shop: Workshop, step: int) -> Stepped:
    """One step of the optimizer, and what it came to."""
    began, rates = time.monotonic(), shop.begin(step)
    given = rates_of(shop.optimization)
    losses, norm = shop.learn(
        shop.batch_builder.micro_batches(step), count=len(plan.micro_steps(step))
    )
    shop.losses.add(losses)
    return Stepped(
        step=step,
        epoch=plan.micro_steps(step).stop / plan.batches_per_epoch,
        loss=sum(losses) / len(losses),
        loss_average=shop.losses.average,
        rates=rates,
        given_rates={} if given == rates else given,
        norm=norm,
        seconds=time.monotonic() - began,
        bands=shop.bands.take(),
        megabytes=peak_megabytes(shop.accelerator.device),
    )


def _ended(
    plan: Plan, checkpoint: Checkpoint, mirror: Mirror, done: int
) -> Generator[Event, None, None]:
    """The last file: the LoRA itself, or what it has come to, with what is needed to go on."""
    if not done:
        run.abandon(plan.run)
        yield Finished(0, "asked to stop")
        return
    if done < plan.total_steps:
        checkpoint.save_state(done)
        saved = checkpoint.save(done, step_suffix(done))
        reason = "asked to stop"
    else:
        saved = checkpoint.save(done, "")
        checkpoint.finish(done)
        reason = "done"
    yield saved
    yield from checkpoint.state_beside(saved)
    mirror.finish()
    yield from mirror.notices()
    yield Finished(done, reason, saved.path)


def _prepared(plan: Plan, control: RunControl) -> Generator[Event, None, Workshop | None]:
    """The workshop, or None where a stop was requested before it was ready.

    A new run that does not even begin gives its name back.
    """
    with closing(prepare(plan)) as job:
        try:
            while not control.stop_requested:
                try:
                    event = next(job)
                except StopIteration as end:
                    shop: Workshop = end.value
                    return shop
                yield event
        except BaseException:
            run.abandon(plan.run)
            raise
    run.abandon(plan.run)
    return None
