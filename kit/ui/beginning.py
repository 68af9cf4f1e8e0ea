"""What Train does: begin in this kernel or, with several processes, outside of it."""

from __future__ import annotations

from kit.planning import Plan
from kit.runs.run import Answer
from kit.ui.monitor.elsewhere import Elsewhere
from kit.ui.monitor.session import Session, pictures_in


def begin(plan: Plan, *, toml: str, answer: Answer = "ask") -> Session:
    """Train it.

    toml: the settings that were planned, for processes that plan them themselves; answer: what they
    do with an unfinished run that is made otherwise, as this plan did.

    Raises: KitError while another run is at work.
    """
    if plan.processes == 1:
        return Session.start(plan)
    pictures = pictures_in(plan.images)
    return Elsewhere.launch(plan.run, plan.total_steps, pictures, toml=toml, answer=answer)
