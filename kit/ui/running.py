"""What a notebook's cells say: show the form, listen to a run, look at one that is over."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from kit.events import Event, Finished
from kit.planning import Plan
from kit.settings import Settings
from kit.sinks import Sink, listening
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
    """One listener for a run: its events.jsonl, loss.png and loggers, and whoever else is given.

        tell = kit.listeners(plan, dashboard)
        for event in kit.train(plan):
            tell(event)

    A listener that breaks is muted; it never ends a run.
    """
    install()
    stack = ExitStack()
    tell = stack.enter_context(listening(plan.run, *more, settings=plan.settings))

    def tell_until_the_end(event: Event) -> None:
        tell(event)
        if isinstance(event, Finished):
            stack.close()

    return tell_until_the_end


def run(events: Iterable[Event], plan: Plan) -> Dashboard:
    """All of a run in one line, `kit.run(kit.train(plan), plan)`: its dashboard and its folder."""
    install()
    dashboard = Dashboard(plan)
    with listening(plan.run, dashboard, settings=plan.settings) as tell:
        try:
            for event in events:
                tell(event)
        except BaseException:
            dashboard.break_off()
            raise
    return dashboard
