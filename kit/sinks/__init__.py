"""Who listens to a job: the console, the file of its events, the picture of its losses, loggers.

A sink is a callable that takes an event, and may return notices that the others should hear.
`fan_out` makes one of several:

    with listening(plan.run, Console(plan.total_steps), settings=plan.settings) as tell:
        for event in train(plan):
            tell(event)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from kit import catalog
from kit.errors import without_secrets
from kit.events import Event, Failed, Noticed
from kit.runs.measured import work_of
from kit.runs.run import Run, bring_back
from kit.settings import Settings, effective
from kit.sinks.background import Background, Sink, muted
from kit.sinks.compiling import CompileCost
from kit.sinks.console import Console
from kit.sinks.jsonl import JsonLines, read_events
from kit.sinks.loss_picture import LossChart
from kit.sinks.measuring import Measuring

__all__ = [
    "Console", "JsonLines", "LossChart", "Sink", "fan_out", "hear_elsewhere", "listening",
    "read_events", "was_heard_elsewhere",
]  # fmt: skip

_heard_elsewhere: set[Path] = set()


def hear_elsewhere(run: Run) -> None:
    """Somebody hears this run's events already: the next `kit.train` of it needs no listeners."""
    _heard_elsewhere.add(run.dir.absolute())


def was_heard_elsewhere(run: Run) -> bool:
    """Take the word of `hear_elsewhere` back; returns whether it was given."""
    place = run.dir.absolute()
    was_heard = place in _heard_elsewhere
    _heard_elsewhere.discard(place)
    return was_heard


@contextmanager
def listening(
    run: Run, *more: Sink, settings: Settings | None = None, chart: Path | None = None
) -> Iterator[Sink]:
    """One sink for a run: whoever is given, its events.jsonl, its loss curve, and its loggers.

    settings: name the loggers; None means none. chart: where the curve is drawn; None means
    loss.png in the run's folder.
    """
    bring_back(run)  # the events of an earlier session, before new ones are added
    with ExitStack() as stack:
        lines = JsonLines(run.dir / "events.jsonl", run.from_step)
        stack.callback(_close, lines)
        drawn = LossChart(chart or run.dir / "loss.png", lines.kept())
        others = list(_chosen(run, settings))
        for sink in others:
            stack.callback(_close, sink)
        tell = fan_out(*more, lines, drawn, *others)
        try:
            yield tell
        except Exception as error:  # told, so that who looks at the run later knows, too
            tell(Failed(without_secrets(error) or type(error).__name__))
            raise


def _close(sink: Any) -> None:
    """A listener that cannot even close, on a full disk say, must not hide what ended the run."""
    with suppress(Exception):
        sink.close()


def _chosen(run: Run, settings: Settings | None) -> Iterator[Any]:
    """Who measures for the next forecast, the loggers that the settings name, and the Hub."""
    if settings is None:
        return
    codes = [catalog.LOGGERS[name].code for name in effective.loggers(settings.logs)]
    if effective.uploads(settings.hub):
        codes.append(catalog.HUB)
    work = work_of(settings)
    if not settings.folders.dataset_config.strip():  # else no step is like another
        yield Measuring(work)
    if work["dynamo_backend"] != "no":
        yield CompileCost(work)
    for code in codes:
        sink = catalog.load(code)(run, settings)
        yield Background(sink) if getattr(sink, "waits", False) else sink


def fan_out(*sinks: Sink) -> Sink:
    """One sink for all of them; one that raises is muted, and the others are told."""
    listening = list(sinks)

    def tell(event: Event) -> None:
        waiting: list[Event] = [event]
        while waiting:
            current = waiting.pop(0)
            for sink in tuple(listening):
                try:
                    waiting.extend(_noticed(sink(current)))
                except Exception as error:  # whatever it is, a listener must not end the run
                    listening[:] = [other for other in listening if other is not sink]
                    waiting.append(muted(sink, error))

    return tell


def _noticed(told: object) -> list[Noticed]:
    """A sink's own notices; whatever else it returns is its own affair."""
    if not isinstance(told, Iterator | list | tuple):
        return []
    return [notice for notice in told if isinstance(notice, Noticed)]
