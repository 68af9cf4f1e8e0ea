"""What every process but the first does: its part of each step, and else what it is told.

It writes no file, tells no event and decides nothing. Where it fails it says why, in its sign of
life, and ends; the first process tells it, and on other machines each says it once more. Where the
first one is lost without a word, the next that lives tells that.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from kit.devices import at_work, ran_out_of_memory
from kit.errors import FAILURES, ProcessLost, in_a_line
from kit.events import Event
from kit.optim.averaging import averaged
from kit.processes import Processes
from kit.processes.ends import OutOfStep, deaf
from kit.runs.last_word import tell_failed
from kit.training.engine import make_room
from kit.training.orders import Dismissed, Order
from kit.training.preparation import Resources, prepare
from kit.training.ranks import Ranks, together
from kit.training.recovery import learns_again, sharded_out_of_memory
from kit.training.step import gathered


def follow(here: Processes) -> None:
    """Train with process 0 until it says that it is over.

    Raises: KitError, and whatever else breaks a step, when process 0 was told.
    """
    with together(here) as ranks, deaf():
        try:
            plan = ranks.spread()
            ranks.begin_beating(plan.run.dir)
            with at_work(plan.settings.machine):
                resources = _drained(prepare(plan, ranks), ranks)
                try:
                    _obey(resources, ranks)
                except (RuntimeError, MemoryError) as error:
                    if ranks.is_sharded and ran_out_of_memory(error):
                        raise sharded_out_of_memory(resources) from error
                    raise
                finally:
                    resources.close()
        except Dismissed:
            return
        except OutOfStep:
            raise
        except ProcessLost as error:
            if ranks.the_first_speaks():
                if ranks.is_beside_the_first:  # it says what there is to say
                    return
            elif ranks.speaks_for_the_first:
                tell_failed(plan.run.dir, in_a_line(error))
            raise


def _drained(job: Generator[Event, None, Resources], ranks: Ranks) -> Resources:
    """What is prepared; its events are those that process 0 tells, too."""
    while True:
        try:
            next(job)
        except StopIteration as end:
            resources: Resources = end.value
            return resources
        ranks.look_now_and_then()


def _obey(resources: Resources, ranks: Ranks) -> None:
    """One order after the other.

    Raises: Dismissed in the end.
    """
    step, trouble = resources.training_step, None
    while True:
        what, number, payload = ranks.awaited()
        if what is not Order.UPDATE:
            step.forget()
        match what:
            case Order.STEP:
                trouble = _make_part(resources, ranks, number, trouble)
            case Order.UPDATE:  # who has trouble does not move, and gets the state of process 0
                trouble = trouble or _lacking(step.update, ranks)
            case Order.SKIP:
                step.skip()
            case Order.STATE:
                resources.checkpoint.take_over(payload)
                learns_again(resources.optimization)
                step.is_whole, trouble = True, None
            case Order.RATES:
                _change_rates(resources, pickle.loads(payload))
            case Order.DRAW:
                drawn = partial(resources.samples.draw_part, payload)
                _beside_steps(resources, ranks, drawn, partial(ranks.collected, b""), trouble)
            case Order.ASK:
                assert resources.stills is not None
                asked = partial(resources.stills.answer_part, payload, step, resources.network)
                nothing = partial(ranks.total, [0.0] * resources.stills.asked_by(payload))
                _beside_steps(resources, ranks, asked, nothing, trouble)


def _make_part(
    resources: Resources, ranks: Ranks, number: int, trouble: BaseException | None
) -> BaseException | None:
    """Our part of a step's gradient, and that of all; what lacks memory is told, not raised.

    trouble: of before, told now. Returns what came too late to be told in this step.
    """
    resources.begin(number)
    micro_steps, step = resources.plan.micro_steps(number), resources.training_step
    assert step.shared is not None
    step.shared.begin(number, micro_steps)
    try:
        if trouble is not None:
            step.shared.fail(trouble)
            return None
        own = resources.feed.micro_batches(ranks.share(micro_steps))
        gathered(
            step,
            own,
            count=len(micro_steps),
            gradient=resources.engine.gradient,
            idle=resources.idle_batch(micro_steps),
        )
    except (RuntimeError, MemoryError) as error:
        if ranks.is_sharded or not ran_out_of_memory(error):
            raise
    else:
        return _lacking(step.clip, ranks)
    # Behind the block, where the error no longer holds on to the step's tensors.
    step.forget()
    return None


def _beside_steps(
    resources: Resources,
    ranks: Ranks,
    job: Callable[[], None],
    nothing: Callable[[str], object],
    trouble: BaseException | None,
) -> None:
    """Our part of pictures and validation, with the weights that a file would get.

    What goes wrong is told to process 0, which tells it and goes on; `nothing` does that where the
    job was not even begun, so that nobody waits for it.
    """
    try:
        if trouble is not None:  # our weights may not be those of the others
            raise trouble
        with ranks.abreast(), averaged(resources.optimization):
            job()
    except (Dismissed, ProcessLost):
        raise
    except FAILURES as error:
        if ranks.is_awaited:
            nothing(in_a_line(error))
        make_room(resources.engine, error, "pictures need the memory that graphs hold")


def _lacking(job: Callable[[], object], ranks: Ranks) -> BaseException | None:
    """Do it; the memory that it lacked is told with the next step."""
    try:
        job()
    except (RuntimeError, MemoryError) as error:
        if ranks.is_sharded or not ran_out_of_memory(error):
            raise
        return MemoryError(in_a_line(error))
    return None


def _change_rates(resources: Resources, rates: dict[str, Any]) -> None:
    for group in resources.optimization.optimizer.param_groups:
        group.pop("factor", None)
        if group["name"] in rates:
            group["factor"] = rates[group["name"]]
