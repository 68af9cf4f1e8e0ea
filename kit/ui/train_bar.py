"""Train, beneath the form: one button that plans anew and starts, and the run's dashboard below.

The form knows nothing of it: `TrainBar(form)` puts itself at the form's end.
"""

from __future__ import annotations

import ipywidgets as widgets

from kit import planning
from kit.errors import KitError, SettingsError
from kit.planning import Plan
from kit.ui.errors import panel
from kit.ui.form.form import Form
from kit.ui.look import block
from kit.ui.monitor.dashboard import Dashboard
from kit.ui.monitor.session import Session


class TrainBar:
    """The button, what it says when it cannot, and the place where the run is shown."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._shown: Session | None = None
        self._past = ""  # the run whose past is shown
        self.button = widgets.Button(
            description="Train",
            icon="play",
            button_style="success",
            tooltip="Plan anew and begin; what is wrong is said here",
            layout=widgets.Layout(width="auto"),
        )
        self.line = block()
        self.slot = widgets.VBox([], layout=widgets.Layout(width="100%"))
        self.button.on_click(lambda _: self.train())
        bar = widgets.HBox([self.button], layout=widgets.Layout(margin="8px 0 12px"))
        form.root.children = (*form.root.children, bar, self.line, self.slot)
        form.on_valid.append(lambda _: self.offer(form.plan))
        self.offer(form.plan)
        if Session.current is not None:
            self.attach(Session.current)

    def train(self) -> None:
        """Start what stands in the form, or say why not."""
        try:
            session = Session.start(planning.plan(self._form.settings))
        except SettingsError as error:
            self.line.value = panel(error)
            self._form.show_problem()
        except KitError as error:
            self.line.value = panel(error)
        else:
            self.line.value = ""
            self.attach(session)

    def attach(self, session: Session) -> None:
        """Show this run below the button."""
        self._shown = session
        self.slot.children = [session.dashboard.root]
        if session.is_running():
            self.button.disabled = True
            session.when_over.append(self._over)
            if not session.is_running():  # it has ended between the two lines
                self._over()

    def offer(self, plan: Plan | None) -> None:
        """Name what the button would do; an unfinished run of these settings is shown with it."""
        if self.button.disabled or plan is None:
            return
        step = plan.run.from_step
        self.button.description = f"Resume from step {step}" if plan.run.resumes else "Train"
        is_new = self._shown is None or self._shown.plan.run.dir != plan.run.dir
        if plan.run.resumes and is_new and self._past != str(plan.run.dir):
            self._past = str(plan.run.dir)
            past = Dashboard(plan)
            past.history.state = "stopped"
            past.draw()
            self.slot.children = [past.root]

    def _over(self) -> None:
        """In the run's own thread: the button is free again, and may have become another one."""
        self.button.disabled = False
        try:
            self.offer(planning.plan(self._form.settings))
        except KitError:
            return  # the form itself says what is wrong with it
