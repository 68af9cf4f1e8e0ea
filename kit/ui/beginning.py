"""What Train does: plan anew, and begin in this kernel or, with several processes, outside."""

from __future__ import annotations

from kit import planning
from kit.launching.command import processes_for
from kit.planning import Plan
from kit.runs.run import Answer
from kit.settings import Settings
from kit.ui.monitor.elsewhere import Elsewhere
from kit.ui.monitor.session import Session


def planned(settings: Settings, answer: Answer = "ask") -> Plan:
    """The plan of as many processes as will train it.

    Raises: KitError, also where the machine has fewer GPUs.
    """
    processes = processes_for(settings.machine)
    return planning.plan(settings, unfinished=answer, processes=processes)


def begin(plan: Plan, toml: str, answer: Answer = "ask") -> Session:
    """Train it; toml: the settings that were planned, for processes that plan them themselves.

    Raises: KitError while another run is at work.
    """
    if plan.processes == 1:
        return Session.start(plan)
    return Elsewhere.launch(plan, toml, answer)
