"""What does not go together, each in a sentence with the button that mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from kit.ui.look import block, escaped

Take = Callable[[Mapping[str, Any], str], None]


@dataclass(frozen=True)
class Remedy:
    """A sentence, and what the button beside it would set."""

    text: str
    button: str
    values: Mapping[str, Any]


class Remedies:
    """A row for each; rows that are not needed are hidden, not closed."""

    def __init__(self, take: Take) -> None:
        """take(values, what): puts values into the form as one change."""
        self._take = take
        self.rows: list[Row] = []
        self.root = widgets.VBox([], layout=widgets.Layout(width="100%"))

    def update(self, remedies: Iterable[Remedy]) -> None:
        """Show these and no others."""
        asked = list(remedies)
        while len(self.rows) < len(asked):
            self.rows.append(Row(self._take))
            self.root.children = [row.root for row in self.rows]
        for i, row in enumerate(self.rows):
            row.show(asked[i] if i < len(asked) else None)


class Row:
    """One sentence and its button."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._remedy: Remedy | None = None
        self.line = block()
        self.button = widgets.Button(layout=widgets.Layout(width="auto"))
        self.button.on_click(lambda _: self.mend())
        self.root = widgets.HBox(
            [self.line, self.button],
            layout=widgets.Layout(display="none", flex_flow="row wrap", align_items="center"),
        )
        self.root.add_class("kit-remedy")

    def show(self, remedy: Remedy | None) -> None:
        """Show it; nothing for None."""
        self._remedy = remedy
        self.root.layout.display = "none" if remedy is None else None
        if remedy is not None:
            self.line.value = f"<span role='alert'>{escaped(remedy.text)}</span>"
            self.button.description = remedy.button

    def mend(self) -> None:
        """Do what the button says."""
        if self._remedy is not None:
            self._take(self._remedy.values, self._remedy.button)
