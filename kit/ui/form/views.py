"""Which rows of the form are looked at: the few that matter, all in tabs, the changed, or a search.

A row is one widget wherever it is shown, so what is typed in a list stands in the tabs, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import ipywidgets as widgets

from kit.settings import Declared
from kit.ui.form.field import Field
from kit.ui.form.pages import Pages
from kit.ui.look import block, escaped, grid, named

# The questions that have no good answer for everybody; the rest has defaults that work.
BASIC = (
    "train_data_dir", "output_dir", "output_name", "resolution",
    "train_batch_size", "epoch", "network_dim", "network_alpha", "unet_lr", "text_encoder_lr",
    "mixed_precision", "sample_prompts", "sample_every_n_epochs",
)  # fmt: skip
MOST_FOUND = 24
SPELLINGS = (
    (r"is(e|ed|es|er|ers|ing|ation|ations)\b", r"iz\1"),
    (r"(?<=[a-z]{3})our(?=s?\b)", "or"),
    (r"\bcentre", "center"),
    (r"\bgrey", "gray"),
)
ABOVE = "pretrained_model_name_or_path"  # its row stands in the start
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
        named(self.search, "Search all settings", hidden=True)
        self.choice = widgets.ToggleButtons(options=VIEWS, value=VIEWS[0])
        self.choice.style.button_width = "auto"
        self.note = block(css="kit-quiet")
        self._listed: tuple[str, ...] = ()
        self._view = ""  # that the listed rows are of
        self._list = grid([])
        self.bar = widgets.HBox(
            [self.choice, self.search], layout=widgets.Layout(flex_flow="row wrap", width="100%")
        )
        self.bar.add_class("kit-bar")
        self.root = widgets.VBox(
            [self.bar, self.note, self._list], layout=widgets.Layout(width="100%")
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
        self._view = "" if text else self.choice.value

    def show_all(self) -> None:
        """Go back to the tabs."""
        self.search.value, self.choice.value = "", VIEWS[1]

    def _basic(self) -> list[str]:
        """The few that matter, and whatever else differs from its default or is wrong.

        A row that stands there stays, or it would go while one types in it.
        """
        wrong = [name for name, field in self._fields.items() if field.problem]
        shown = self._listed if self._view == VIEWS[0] else ()
        names = dict.fromkeys([*BASIC, *shown, *self._changed(), *wrong])
        return [name for name in names if name in self._fields and name != ABOVE]

    def _show(self, names: Iterable[str] | None, note: str) -> None:
        """These rows as a list; None is all of them in their tabs."""
        listed = tuple(names or ())
        if listed != self._listed:
            self._listed = listed
            self._list.children = [self._fields[name].row for name in listed]
        self.note.value = f"<div>{escaped(note)}</div>" if note else ""
        self._list.layout.display = None if listed else "none"
        if names is None and self._pages.root not in self.root.children:
            self.root.children = (*self.root.children, self._pages.root)
        if self._pages.is_made:
            self._pages.root.layout.display = None if names is None else "none"


def search(text: str, declared: Iterable[Declared]) -> list[str]:
    """The settings whose name, label, place, help or other names hold every word; best first.

    Names, labels and the names that the guide and the GUI use come before help. British and
    American spelling find the same.
    """
    words = _words(text)
    first, second = [], []
    for setting in declared:
        names = (setting.name, setting.label, setting.gui_key or "", setting.search)
        title = _both_spellings(" ".join(names))
        whole = f"{title} {_both_spellings(f'{setting.box} {setting.help}')}"
        if all(_holds(title, word) for word in words):
            first.append(setting.name)
        elif all(_holds(whole, word) for word in words):
            second.append(setting.name)
    return [*first, *second]


def _words(text: str) -> list[str]:
    """What is looked for, without the marks around it: "(% of steps)" is %, of, steps."""
    bare = (word.strip("()[],.;:!?\"'") for word in text.lower().replace("_", " ").split())
    return [word for word in bare if word]


def _holds(text: str, word: str) -> bool:
    return word in text or american(word) in text


def _both_spellings(text: str) -> str:
    plain = text.lower().replace("_", " ")
    return f"{plain} {american(plain)}"


def american(text: str) -> str:
    """Words of British spelling as Americans write them; others may change, on both sides alike."""
    for british, their in SPELLINGS:
        text = re.sub(british, their, text)
    return text


def _changes(fields: Mapping[str, Field], names: list[str]) -> str:
    if not names:
        return "Every setting has its default."
    defaults = ", ".join(
        f"{name} (default: {fields[name].default_text or 'blank'})" for name in names
    )
    return f"{len(names)} settings differ from their defaults: {defaults}"
