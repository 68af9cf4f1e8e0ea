"""`kit.train`: the training, heard by whom the settings name. The loop itself knows no listener.

`kit.train(plan)` also writes events.jsonl, loss.png and the curves of the loggers;
`kit.train(plan, listeners=[])` is heard by nobody but who iterates, and
`kit.train(plan, listeners=[print])` by these alone.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing

from kit.control import RunControl
from kit.events import Event
from kit.planning import Plan
from kit.processes import here
from kit.sinks import Sink, fan_out, listening, was_heard_elsewhere
from kit.training.loop import train as events_of


def train(
    plan: Plan, control: RunControl | None = None, *, listeners: Sequence[Sink] | None = None
) -> Generator[Event, None, None]:
    """Train one LoRA, telling what happens as it happens; the run is over when the iteration is.

    control: see `kit.training.loop`. listeners: who else hears each event, before it is handed out.
    None:
    the run's events.jsonl, its loss.png, and the loggers and the Hub that the settings name, unless
    `kit.listeners` or `kit.run` bring them. What listeners have to say comes as Noticed.

    Raises: what `kit.training.loop.train` raises.
    """
    if not here().is_first:  # the first of several processes tells
        yield from events_of(plan, control)
        return
    is_heard = was_heard_elsewhere(plan.run)
    told: list[Event] = []
    with ExitStack() as stack:
        if listeners is None and not is_heard:
            heard = listening(plan.run, told.append, settings=plan.settings)
            tell = stack.enter_context(heard)
        else:
            tell = fan_out(told.append, *(listeners or ()))
        events = stack.enter_context(closing(events_of(plan, control)))
        yield from _heard(events, tell, told)


def _heard(
    events: Generator[Event, None, None], tell: Sink, told: list[Event]
) -> Generator[Event, None, None]:
    """Each event once it was told, and behind it what listeners say to it.

    told: what `tell` has told so far.
    """
    for event in events:
        tell(event)
        yield from told
        told.clear()
