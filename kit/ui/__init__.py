"""The notebook's face: form, dashboard, quiet errors. It knows plans and events, no training."""

from kit.ui.door import choose, listeners, queue, results, run, show, wait, watch
from kit.ui.form.form import Form
from kit.ui.monitor.dashboard import Dashboard
from kit.ui.monitor.session import Session

__all__ = [
    "Dashboard",
    "Form",
    "Session",
    "choose",
    "listeners",
    "queue",
    "results",
    "run",
    "show",
    "wait",
    "watch",
]
