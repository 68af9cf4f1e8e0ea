"""What a notebook's cells say: show the form, listen to a run, look at one that is over."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kit.events import Event, Finished
from kit.planning import Plan
from kit.runs import bring_back
from kit.settings import Settings
from kit.sinks import JsonLines, LossChart, Sink, fan_out, listening
from kit.ui.dashboard import Dashboard
from kit.ui.errors import install
from kit.ui.form import Form


def show(settings: Settings | None = None) -> Form:
    """Show the form, filled with these settings; `.settings` of what is returned reads it."""
    install()
    form = Form(settings)
    form.show()
    return form


def watch(run_dir: str | Path) -> Dashboard:
    """Show a run from its folder: a finished one, or another process's as far as it has come.

    Raises: OutputError where the folder holds no events.jsonl.
    """
    install()
    dashboard = Dashboard.replay(run_dir)
    dashboard.show()
    return dashboard


def listeners(plan: Plan, *more: Sink) -> Sink:
    """One listener for a run: its events.jsonl and loss.png, and whoever else is given.

        tell = kit.listeners(plan, dashboard)
        for event in kit.train(plan):
            tell(event)

    A listener that breaks is muted; it never ends a run.
    """
    install()
    lines = _lines_of(plan)

    def close_at_the_end(event: Event) -> None:
        if isinstance(event, Finished):
            lines.close()

    return fan_out(*more, lines, _chart_of(plan, lines), close_at_the_end)


def run(events: Iterable[Event], plan: Plan) -> Dashboard:
    """All of a run in one line, `kit.run(kit.train(plan), plan)`: its dashboard and its folder."""
    install()
    dashboard = Dashboard(plan)
    with listening(plan.run, dashboard) as tell:
        try:
            for event in events:
                tell(event)
        except BaseException:
            dashboard.break_off()
            raise
    return dashboard


def _lines_of(plan: Plan) -> JsonLines:
    bring_back(plan.run)
    return JsonLines(plan.run.dir / "events.jsonl", plan.run.from_step)


def _chart_of(plan: Plan, lines: JsonLines) -> LossChart:
    return LossChart(plan.run.dir / "loss.png", lines.kept())
