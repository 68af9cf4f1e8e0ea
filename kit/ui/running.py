"""What a notebook's cells say: show the form, listen to a run, look at one that is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from kit.events import Event
from kit.planning import Plan
from kit.settings import Settings
from kit.sinks import JsonLines, LossChart, fan_out
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
    """Show a run from its folder: one that is over, or one of another process as far as it has come.

    Raises: OutputError where the folder holds no events.jsonl.
    """
    install()
    dashboard = Dashboard.replay(run_dir)
    dashboard.show()
    return dashboard


def listeners(plan: Plan, *more: Callable[[Event], None]) -> Callable[[Event], None]:
    """One listener for a run: its events.jsonl and loss.png, and whoever else is given.

        tell = kit.listeners(plan, dashboard)
        for event in kit.train(plan):
            tell(event)
    """
    install()
    folder = plan.run.dir
    return fan_out(
        *more,
        JsonLines(folder / "events.jsonl", plan.run.from_step),
        LossChart(folder / "loss.png"),
    )


def run(events: Iterable[Event], plan: Plan) -> Dashboard:
    """Listen to a run until it is over, in a dashboard and in its folder: `kit.run(kit.train(plan), plan)`."""
    dashboard = Dashboard(plan)
    tell = listeners(plan, dashboard)
    try:
        for event in events:
            tell(event)
    except BaseException:
        dashboard.break_off()
        raise
    return dashboard
