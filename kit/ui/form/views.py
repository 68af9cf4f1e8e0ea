"""Which rows of the form are looked at: the few that matter, all in tabs, the changed, or a search.

A row is one widget wherever it is shown, so what is typed in a list stands in the tabs, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import ipywidgets as widgets

from kit.settings import Declared
from kit.ui.form.field import Field
from kit.ui.form.pages import Pages
from kit.ui.look import block, escaped, grid

# The questions that have no good answer for everybody; the rest has defaults that work.
BASIC = (
    "pretrained_model_name_or_path", "train_data_dir", "output_dir", "output_name", "resolution",
    "train_batch_size", "epoch", "network_dim", "network_alpha", "unet_lr", "text_encoder_lr",
    "mixed_precision", "sample_prompts", "sample_every_n_epochs",
)  # fmt: skip
MOST_FOUND = 24
VIEWS = ("Basic", "All settings", "Changed")


class Views:
    """Search box, choice of view, and the rows that they leave."""

    def __init__(
        self, fields: Mapping[str, Field], pages: Pages, changed: Callable[[], list[str]]
    ) -> None:
        """changed() names the settings that differ from their defaults."""
        self._fields, self._pages, self._changed = fields, pages, changed
        self.search = widgets.Text(
            placeholder="Search all settings", layout=widgets.Layout(width="220px")
        )
        self.choice = widgets.ToggleButtons(options=VIEWS, value=VIEWS[0])
        self.choice.style.button_width = "auto"
        self.note = block(css="kit-quiet")
        self._listed: tuple[str, ...] = ()
        self._list = grid([], column=260)
        self.bar = widgets.HBox(
            [self.choice, self.search], layout=widgets.Layout(flex_flow="row wrap", width="100%")
        )
        self.bar.add_class("kit-bar")
        self.root = widgets.VBox(
            [self.bar, self.note, self._list, pages.root], layout=widgets.Layout(width="100%")
        )
        self.search.observe(lambda _: self.update(), names="value")
        self.choice.observe(lambda _: self.update(), names="value")
        self.update()

    def update(self) -> None:
        """Show what the search and the view ask for."""
        text = self.search.value.strip()
        if text:
            found = search(text, (field.declared for field in self._fields.values()))
            note = f"{len(found)} of {len(self._fields)} settings match {text!r}"
            if len(found) > MOST_FOUND:
                note += f"; the first {MOST_FOUND} are shown"
            self._show(found[:MOST_FOUND], note)
        elif self.choice.value == "Basic":
            self._show(self._basic(), "")
        elif self.choice.value == "Changed":
            names = self._changed()
            self._show(names, _changes(self._fields, names))
        else:
            self._show(None, "")

    def show_all(self) -> None:
        """Go back to the tabs."""
        self.search.value, self.choice.value = "", VIEWS[1]

    def _basic(self) -> list[str]:
        """The few that matter, and whatever else differs from its default or is wrong."""
        wrong = [name for name, field in self._fields.items() if field.problem]
        basic = [name for name in BASIC if name in self._fields]
        return list(dict.fromkeys([*basic, *self._changed(), *wrong]))

    def _show(self, names: Iterable[str] | None, note: str) -> None:
        """These rows as a list; None is all of them in their tabs."""
        listed = tuple(names or ())
        if listed != self._listed:
            self._listed = listed
            self._list.children = [self._fields[name].row for name in listed]
        self.note.value = f"<div>{escaped(note)}</div>" if note else ""
        self._list.layout.display = None if listed else "none"
        self._pages.root.layout.display = None if names is None else "none"


def search(text: str, declared: Iterable[Declared]) -> list[str]:
    """The settings whose name, label, place or help hold every word; names and labels first."""
    words = text.lower().replace("_", " ").split()
    first, second = [], []
    for setting in declared:
        title = f"{setting.name} {setting.label} {setting.gui_key}".lower().replace("_", " ")
        whole = f"{title} {setting.box} {setting.help}".lower()
        if all(word in title for word in words):
            first.append(setting.name)
        elif all(word in whole for word in words):
            second.append(setting.name)
    return [*first, *second]


def _changes(fields: Mapping[str, Field], names: list[str]) -> str:
    if not names:
        return "Every setting has its default."
    defaults = ", ".join(
        f"{name} (default: {fields[name].default_text or 'blank'})" for name in names
    )
    return f"{len(names)} settings differ from their defaults: {defaults}"
