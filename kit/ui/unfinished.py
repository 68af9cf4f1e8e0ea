"""The question whether to go on with an unfinished run that is made otherwise, and its buttons."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets

from kit.runs.run import Answer, Run
from kit.ui.look import block, escaped


class Question:
    """A line and two buttons, shown where a plan asks."""

    def __init__(self, answered: Callable[[Answer], None]) -> None:
        """answered: told what a person has chosen."""
        self.text = block()
        self.go_on, self.begin_anew = self._button("play"), self._button("plus")
        self.go_on.on_click(lambda _: answered("go on"))
        self.begin_anew.on_click(lambda _: answered("begin anew"))
        buttons = widgets.HBox([self.go_on, self.begin_anew])
        self.root = widgets.VBox([self.text, buttons], layout=widgets.Layout(display="none"))

    def show(self, run: Run | None, words: Callable[[str], str]) -> None:
        """Ask about what this run says, or nothing; words: puts labels in place of names."""
        asks = run is not None and run.asks
        self.root.layout.display = None if asks else "none"
        if run is None or run.unfinished is None or not asks:
            self.text.value = ""
            return
        other = run.unfinished
        self.text.value = (
            f"<div class='kit-problem' role='alert'><b>{escaped(other.name)}</b> is not finished "
            f"(step {other.step}), and was made otherwise: {escaped(words(other.told))}.</div>"
        )
        self.go_on.description = f"Go on with {other.name}"
        self.go_on.tooltip = f"From step {other.step}, with what stands in the form now"
        self.begin_anew.description = f"Begin anew as {run.name}"
        self.begin_anew.tooltip = f"{other.name} stays as it is"

    @staticmethod
    def _button(icon: str) -> widgets.Button:
        return widgets.Button(icon=icon, layout=widgets.Layout(width="auto"))
