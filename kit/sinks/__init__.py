"""Who listens to a job: the console, the file of its events, the picture of its losses.

A sink is a callable that takes an event. `fan_out` makes one of several:

    show = fan_out(Console(plan.total_steps), JsonLines(plan.run.dir / "events.jsonl"))
    for event in train(plan):
        show(event)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kit.events import Event, Noticed
from kit.sinks.console import Console
from kit.sinks.history import JsonLines, read_events
from kit.sinks.picture import LossChart

__all__ = ["Console", "JsonLines", "LossChart", "Sink", "fan_out", "read_events"]

Sink: TypeAlias = Callable[[Event], None]


def fan_out(*sinks: Sink) -> Sink:
    """One sink for all of them; one that raises is muted, and the others are told."""
    listening = list(sinks)

    def tell(event: Event) -> None:
        waiting = [event]
        while waiting:
            current = waiting.pop(0)
            for sink in tuple(listening):
                try:
                    sink(current)
                except Exception as error:  # whatever it is, a listener must not end the run
                    listening[:] = [other for other in listening if other is not sink]
                    name = getattr(sink, "__name__", type(sink).__name__)
                    waiting.append(Noticed(f"{name} failed and is muted; the run goes on: {error}"))

    return tell
