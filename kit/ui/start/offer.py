"""What a file, a preset or the example would change, shown before it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from kit.settings import Settings
from kit.settings.diffs import Change
from kit.ui.form.field import as_text
from kit.ui.look import block, escaped

Fill = Callable[[Settings, str], None]  # new settings, and what brings them


class Offer:
    """A table of changes with Apply and Leave; nothing is shown where nothing is offered."""

    def __init__(self) -> None:
        self._do: Callable[[], None] | None = None
        self.table = block()
        self.apply_button = _button("Apply", "check", "Fill these values in; Undo takes them back")
        self.leave_button = _button("Leave as it is", "", "Change nothing")
        self.apply_button.on_click(lambda _: self.apply())
        self.leave_button.on_click(lambda _: self.forget())
        buttons = widgets.HBox([self.apply_button, self.leave_button])
        self.root = widgets.VBox([self.table, buttons], layout=widgets.Layout(width="100%"))
        self.root.add_class("kit-offer")
        self.forget()

    def show(self, what: str, changes: list[Change], do: Callable[[], None]) -> None:
        """Offer these changes; do: what Apply does."""
        self._do = do
        self.table.value = table(what, changes)
        self.apply_button.layout.display = None if changes else "none"
        self.root.layout.display = None

    def apply(self) -> None:
        """Do what is offered."""
        do = self._do
        self.forget()
        if do is not None:
            do()

    def forget(self) -> None:
        """Offer nothing."""
        self._do = None
        self.table.value = ""
        self.root.layout.display = "none"


def table(what: str, changes: list[Change]) -> str:
    """Each change with both values, as HTML."""
    if not changes:
        return f"<div>{escaped(what)}: nothing would change, the form holds its values.</div>"
    count = "1 setting" if len(changes) == 1 else f"{len(changes)} settings"
    rows = "".join(
        f"<tr><td>{escaped(c.label)}</td><td>{_shown(c.before)}</td><td>{_shown(c.after)}</td></tr>"
        for c in changes
    )
    head = "<tr><th>would change</th><th>from</th><th>to</th></tr>"
    return (
        f"<div><b>{escaped(what)}</b> would change {count}:</div>"
        f"<table class='kit-changes'>{head}{rows}</table>"
    )


def _shown(value: Any) -> str:
    words = {True: "on", False: "off"}
    text = words[value] if isinstance(value, bool) else as_text(value)
    return escaped(text) or "(blank)"


def _button(text: str, icon: str, hint: str) -> widgets.Button:
    return widgets.Button(
        description=text, icon=icon, tooltip=hint, layout=widgets.Layout(width="auto")
    )
