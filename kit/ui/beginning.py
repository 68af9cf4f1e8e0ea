"""What Train does with a plan: begin in this kernel or, with several processes, outside."""

from __future__ import annotations

from kit.planning import Plan
from kit.runs.run import Answer
from kit.ui.monitor.elsewhere import Elsewhere
from kit.ui.monitor.session import Session


def begin(plan: Plan, toml: str, answer: Answer = "ask") -> Session:
    """Train it; toml: the settings that were planned, for processes that plan them themselves.

    Raises: KitError while another run is at work.
    """
    if plan.processes == 1:
        return Session.start(plan)
    run, pictures = plan.run, plan.learned_from
    return Elsewhere.launch(run, toml, answer, total_steps=plan.total_steps, pictures=pictures)
