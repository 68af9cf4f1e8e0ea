"""The notebook's face: form, dashboard, quiet errors. It knows plans and events, no training."""

from kit.ui.dashboard import Dashboard
from kit.ui.form import Form
from kit.ui.running import listeners, run, show, watch

__all__ = ["Dashboard", "Form", "listeners", "run", "show", "watch"]
