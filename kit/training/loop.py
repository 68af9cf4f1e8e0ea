"""Training: a plan in, events out. The loop is this page.

    for event in train(plan):
        print(event)

Leaving early is safe: the state of the last whole step is kept, and the same settings go on from
there with the same data, to the same weights as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing

from kit import processes
from kit.control import RunControl, stop_on_interrupt
from kit.devices import at_work, free_memory
from kit.errors import Diverged, OutputError
from kit.events import Began, Event, Finished, Lightened, Noticed, RateChanged, Saved
from kit.optim.learning_rates import changed_rates
from kit.planning import Plan
from kit.runs import run as runs
from kit.runs.control_files import Inbox
from kit.runs.lock import at_work_in
from kit.runs.made_of import keep
from kit.runs.mirroring import Mirror, mirrored
from kit.runs.presence import Presence
from kit.runs.run import Run
from kit.runs.unfinished import refuse_undecided
from kit.training.checkpoint import Checkpoint, step_suffix
from kit.training.following import follow
from kit.training.preparation import Resources, prepare
from kit.training.ranks import Ranks, together
from kit.training.recovery import attempt, go_back
from kit.training.requests import answer_requests, due_samples
from kit.training.soundness import Setback
from kit.training.validating import due_validation


def train(plan: Plan, control: RunControl | None = None) -> Generator[Event, None, None]:
    """Train one LoRA, telling what happens as it happens.

    The run is over when the iteration is. `control` is read between two steps: to stop, to rest, to
    draw, to save, to change the learning rate. Ctrl-C and the notebook's stop sign ask to stop.
    Of several processes (`kit.processes`) the first one's plan counts, and it alone tells events.

    Raises: ModelError, DatasetError, DeviceError, LoraFileError, OutputError, Diverged; each says
    what to change.
    """
    here = processes.here()
    if not here.is_first:
        follow(here)
        return
    processes.require_all(plan.processes)
    refuse_undecided(plan.run)
    control = control or RunControl()
    with (
        at_work_in(plan.run.dir) as hold,
        control.listening_to(Inbox(plan.run.dir, hold.id)),
        together(here) as ranks,
        control.listening_to(lambda _: ranks.look_now_and_then()),  # in a pause, too
    ):
        place = Presence(plan.run, plan.settings.to_toml(), hold)
        if here.count > 1:
            ranks.begin_beating(plan.run.dir)
            ranks.spread(plan)
        yield from _trained(plan, control, place, ranks)


def _trained(
    plan: Plan, control: RunControl, place: Presence, ranks: Ranks
) -> Generator[Event, None, None]:
    """The run, in a folder that is held."""
    runs.begin(plan.run, seed=plan.seed, settings_toml=place.settings_toml)
    yield Began(
        str(plan.run.dir), plan.run.name, plan.total_steps, plan.epochs_after(plan.total_steps)
    )
    for text in plan.notices:
        yield Noticed(text)

    with (
        stop_on_interrupt(control),
        at_work(plan.settings.machine),
        mirrored(plan.run) as mirror,
    ):
        # Model, caches, network, optimizer, state
        resources = yield from _prepared(prepare(plan, ranks), plan.run, control, ranks)
        if resources is None:
            yield Finished(plan.run.from_step, "asked to stop")
            return
        if notice := keep(plan.run.dir, plan.made_of, [i.path for i in resources.plan.images]):
            yield Noticed(notice)
        done = resources.checkpoint.state_step
        try:
            if done == 0:
                yield from due_samples(control, resources, 0)
                yield from resources.notices()
            while True:
                try:
                    yield from _made_up(control, resources, mirror, place, done)
                    while done < plan.total_steps and not control.stop_requested:
                        made = attempt(resources, done + 1)
                        if isinstance(made, Lightened):  # the same step once more, in less
                            yield made
                            continue
                        done += 1
                        resources.checkpoint.owe(*resources.checkpoint.due_after(done))
                        try:
                            if not control.is_asked:
                                resources.look_ahead(done + 1)
                        finally:  # it was made, even if Ctrl-C comes now
                            yield made
                        for event in _between_steps(control, resources, mirror, place, done):
                            place.note(event)
                            yield event
                        if not control.stop_requested:
                            resources.checkpoint.save_state_if_cheap(done)

                    ranks.look()  # a launcher asks to stop, too, where another process ended
                    yield from _ended(resources, mirror, done)
                    break
                except Setback as setback:  # the weights of this step are not to be used
                    done, told = go_back(resources, setback, done)
                    yield from told
        except BaseException as error:  # whoever iterated has left, or something broke
            _keep_whole(resources, done, error)
            raise
        finally:
            resources.close()


def _between_steps(
    control: RunControl, resources: Resources, mirror: Mirror, place: Presence, step: int
) -> Generator[Event, None, None]:
    """Samples and files that are due after a step, notices, and what was requested meanwhile."""
    resources.ranks.doing(f"behind step {step}")
    yield from _made_again(place, resources, step)
    yield from _due(control, resources, mirror, place, step)
    yield from mirror.notices()
    yield from answer_requests(control, resources, step)
    yield from resources.notices()


def _made_again(place: Presence, resources: Resources, step: int) -> Iterator[Noticed]:
    """Somebody deleted the run's folder: it is there again, with the state of this step."""
    if told := place.made_again():
        resources.ranks.beat_on()
        resources.checkpoint.save_state(step, again=True)
        yield Noticed(told)


def _due(
    control: RunControl, resources: Resources, mirror: Mirror, place: Presence, step: int
) -> Generator[Event, None, None]:
    """What is owed after a step; a state that is kept before all of it was told says what is."""
    checkpoint = resources.checkpoint
    if "validation" in checkpoint.owed and (yield from due_validation(control, resources, step)):
        checkpoint.pay(step, "validation")
    if "samples" in checkpoint.owed and (yield from due_samples(control, resources, step)):
        checkpoint.pay(step, "samples")
    yield from _made_again(place, resources, step)  # pictures take long
    if "files" in checkpoint.owed and (saved := checkpoint.save_due(step)):
        checkpoint.save_state(step)
        yield saved
        mirror.drop(saved.removed)
        yield from _state_beside(checkpoint, mirror, saved)
        checkpoint.pay(step, "files")


def _state_beside(
    checkpoint: Checkpoint, mirror: Mirror, saved: Saved
) -> Generator[Event, None, None]:
    for kept in checkpoint.state_beside(saved):
        yield kept
        mirror.drop(kept.removed)


def _made_up(
    control: RunControl, resources: Resources, mirror: Mirror, place: Presence, step: int
) -> Generator[Event, None, None]:
    """What the state that the run goes on from still owed: done now, or done again.

    Listeners have forgotten what they were told of it: see `kit.sinks.jsonl`.
    """
    if "rates" in resources.checkpoint.owed:
        yield RateChanged(step, changed_rates(resources.optimization))
        resources.checkpoint.pay(step, "rates")
    yield from _due(control, resources, mirror, place, step)


def _keep_whole(resources: Resources, done: int, error: BaseException) -> None:
    """Keep the state of the last whole step, where the weights are still those of it.

    After a loss that is not finite they may not be finite either: the state before it stays.
    """
    if isinstance(error, Diverged | OutputError) or not resources.training_step.is_whole:
        return
    resources.training_step.zero_grad()
    free_memory()
    try:
        resources.checkpoint.save_state(done)
    except (OutputError, Setback):
        if isinstance(error, GeneratorExit):
            raise
        # What broke first is what a person must know of.


def _ended(resources: Resources, mirror: Mirror, done: int) -> Generator[Event, None, None]:
    """The last file: the LoRA itself, or what it has come to, with what is needed to go on."""
    plan, checkpoint = resources.plan, resources.checkpoint
    if not done:
        runs.abandon(plan.run)
        yield Finished(0, "asked to stop")
        return
    if done < plan.total_steps:
        checkpoint.save_state(done)
        saved = checkpoint.save(done, step_suffix(done))
        reason = "asked to stop"
    else:
        checkpoint.owe("end")
        checkpoint.record_owed(done)
        saved = checkpoint.save(done, "")
        reason = "done"
    yield saved
    yield from _state_beside(checkpoint, mirror, saved)
    mirror.finish()
    yield from mirror.notices()
    try:
        yield Finished(done, reason, saved.path)
    finally:  # it was told, even if whoever iterates wants no more
        if reason == "done":
            checkpoint.finish(done)


def _prepared(
    job: Generator[Event, None, Resources], run: Run, control: RunControl, ranks: Ranks
) -> Generator[Event, None, Resources | None]:
    """The resources, or None where a stop was requested before it was ready.

    A new run that does not even begin gives its name back.
    """
    with closing(job):
        try:
            while not control.stop_requested:
                try:
                    event = next(job)
                except StopIteration as end:
                    resources: Resources = end.value
                    return resources
                yield event
                ranks.look_now_and_then()
                control.listen()
            ranks.look()
        except BaseException:
            runs.abandon(run)
            raise
    runs.abandon(run)
    return None
