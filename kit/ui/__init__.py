"""The notebook's face: form, dashboard, quiet errors. It knows plans and events, no training."""

from kit.ui.dashboard import Dashboard
from kit.ui.form.form import Form
from kit.ui.running import listeners, results, run, show, wait, watch
from kit.ui.session import Session

__all__ = [
    "Dashboard",
    "Form",
    "Session",
    "listeners",
    "results",
    "run",
    "show",
    "wait",
    "watch",
]
