"""Who listens to a job: the console, the file of its events, the picture of its losses.

A sink is a callable that takes an event. `fan_out` makes one of several:

    with listening(plan.run, Console(plan.total_steps)) as tell:
        for event in train(plan):
            tell(event)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias

from kit.events import Event, Failed, Noticed
from kit.runs import Run, bring_back
from kit.sinks.console import Console
from kit.sinks.history import JsonLines, read_events
from kit.sinks.picture import LossChart

__all__ = ["Console", "JsonLines", "LossChart", "Sink", "fan_out", "listening", "read_events"]

Sink: TypeAlias = Callable[[Event], None]


@contextmanager
def listening(run: Run, *more: Sink, chart: Path | None = None) -> Iterator[Sink]:
    """One sink for a run: whoever is given, its events.jsonl, and its loss curve.

    chart: where the curve is drawn; None means loss.png in the run's folder.
    """
    bring_back(run)  # the events of an earlier session, before new ones are added
    with closing(JsonLines(run.dir / "events.jsonl", run.from_step)) as lines:
        tell = fan_out(*more, lines, LossChart(chart or run.dir / "loss.png", lines.kept()))
        try:
            yield tell
        except Exception as error:  # told, so that who looks at the run later knows, too
            tell(Failed(str(error) or type(error).__name__))
            raise


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
