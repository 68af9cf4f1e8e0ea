"""A declared setting and its widget: labelled control, help that opens, and problem, as one row.

The label is the control's own description: core widgets have no other accessible name. Help is a
`details` of HTML, which opens by click and by keyboard without a script.

Nothing here knows a setting by name: kind, choices, range and help come from the declaration, and
whether a value is right is decided by the settings themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from kit.settings import Declared
from kit.ui.form.layouts import Shared
from kit.ui.look import escaped

FULL = {"width": "100%", "min_width": "0"}
NUMBERS = ("int", "float")
FROM_FILE = "from the file"
# A dropdown cannot hold None: in ipywidgets it means that nothing is chosen.
MAYBE: Mapping[str, bool | None] = {FROM_FILE: None, "yes": True, "no": False}
EXPONENT = re.compile(r"e([+-])0*(\d)")


def as_text(value: object) -> str:
    """A value as a person would type it: 5e-05 is 5e-5, 1.0 is 1, None is blank."""
    if value is None:
        return ""
    if isinstance(value, float):
        text = EXPONENT.sub(r"e\1\2", repr(value)).replace("e+", "e")
        return text.removesuffix(".0")
    return str(value)


def make_control(
    declared: Declared, value: Any, make: Callable[..., Any], *, disabled: bool = False
) -> widgets.Widget:
    """The control for a setting's kind, holding a value; make: see `Shared.make`.

    Numbers are text fields: a number field knows no blank, and hides what was typed.
    """
    name = {
        "description": declared.title,
        "style": {"description_width": "initial"},
        "disabled": disabled,
    }
    if _is_box(declared):
        return make(widgets.Checkbox, bool(value), indent=False, layout={"width": "auto"}, **name)
    if declared.type == "bool":
        return make(widgets.Dropdown, options=list(MAYBE), value=_word(value), layout=FULL, **name)
    if declared.type == "choice":
        return make(widgets.Dropdown, options=declared.choices, value=value, layout=FULL, **name)
    text = as_text(value)
    if declared.type == "text":
        return make(widgets.Textarea, text, continuous_update=False, rows=5, layout=FULL, **name)
    return make(widgets.Text, text, continuous_update=True, layout=FULL, **name)  # checked as typed


class Field:
    """One setting's row in the form."""

    def __init__(
        self,
        declared: Declared,
        value: Any,
        on_change: Callable[[], None],
        shared: Shared,
        *,
        idle: str = "",
    ) -> None:
        """idle: why it has no effect now; told later, by `mark`, it is one more message."""
        self.declared = declared
        self.problem, self.idle, self.note = "", idle, ""
        self.control = make_control(declared, value, shared.make, disabled=bool(idle))
        self._make = shared.make
        self._row: widgets.Box | None = None
        self._help: widgets.HTML | None = None
        self._told: widgets.HTML | None = None  # beneath it; made with the first thing to tell
        self.control.observe(lambda _: on_change(), names="value")

    @property
    def row(self) -> widgets.Box:
        """Label, control, help, and what is told of it, made when it is first shown.

        Most rows of a form are never looked at, and each is three messages to the page.
        """
        if self._row is None:
            self._help = self._make(widgets.HTML, self._help_text(), layout={"width": "auto"})
            self._row = self._laid_out(self._help)
            self._tell()
        return self._row

    @property
    def value(self) -> Any:
        """What stands in the control; numbers as they were typed, for the settings to read."""
        value = self.control.value
        if self.declared.type == "bool" and self.declared.optional:
            return MAYBE[value]
        if self.declared.type == "path":
            return value.strip()
        return value

    @value.setter
    def value(self, value: Any) -> None:
        if self.declared.type == "bool":
            self.control.value = _word(value) if self.declared.optional else bool(value)
        elif self.declared.type == "choice":
            self.control.value = value
        else:
            self.control.value = as_text(value)

    @property
    def default_text(self) -> str:
        """The default as a person would type it."""
        return as_text(self.declared.default)

    @property
    def is_changed(self) -> bool:
        """What stands in it is not the default; 1e-4 and 0.0001 are the same."""
        value, default = self.value, self.declared.default
        if not isinstance(value, str):
            return bool(value != default)
        try:
            return float(value) != default if self.declared.type in NUMBERS else value != default
        except ValueError:
            return value.strip() != as_text(default)

    def mark(self, *, problem: str = "", idle: str = "", note: str = "") -> None:
        """Show what is wrong with the value, why it has no effect now, or what else is known of it.

        Blank texts clear it.
        """
        if (problem, idle, note) == (self.problem, self.idle, self.note):
            return
        self.problem, self.idle, self.note = problem, idle, note
        if self._help is not None:
            _send(self._help, self._help_text())
            self._tell()
            _toggle(self.row, "kit-bad", on=self._is_bad)
            _toggle(self.row, "kit-idle", on=self._is_idle)
        # What is wrong must stay open to be put right, even where it has no effect.
        self.control.disabled = self._is_idle

    @property
    def _is_bad(self) -> bool:
        return bool(self.problem)

    @property
    def _is_idle(self) -> bool:
        return bool(self.idle) and not self.problem

    def _laid_out(self, below: widgets.HTML) -> widgets.Box:
        kind = ("text", "path")
        wide = dict(zip(kind, ("kit-full", "kit-wide"), strict=True)).get(self.declared.type)
        css = ["kit-field", f"kit-f-{self.declared.name}"]
        css.append("kit-check" if _is_box(self.declared) else "kit-over")
        css += [wide] if wide else []
        css += ["kit-bad"] if self._is_bad else ["kit-idle"] if self._is_idle else []
        children = [self.control, below]
        box: widgets.Box = self._make(widgets.VBox, children, layout=FULL, css=tuple(css))
        return box

    def _tell(self) -> None:
        """What is wrong, or else what is known of the value."""
        css, text = ("problem", self.problem) if self.problem else ("quiet", self.note)
        html = f"<div class='kit-{css}'>{escaped(text)}</div>" if text else ""
        if self._told is not None:
            _send(self._told, html)
        elif html:
            self._told = self._make(widgets.HTML, html, layout={"width": "auto"})
            self.row.children = (*self.row.children, self._told)

    def _help_text(self) -> str:
        """Closed, a question mark; open, the help, what is possible, and why it is grey."""
        declared = self.declared
        idle = f"<p><b>No effect now: {escaped(self.idle)}.</b></p>" if self.idle else ""
        name = escaped(f"Help: {declared.label}")
        default = f"; default {escaped(self._default_words())}"
        return (
            f'<details class="kit-help"><summary aria-label="{name}" title="{name}">?</summary>'
            f"<div>{idle}<p>{escaped(declared.help)}</p>"
            f"<p><code>{declared.name}</code>: {escaped(declared.possible)}{default}.</p></div>"
            "</details>"
        )

    def _default_words(self) -> str:
        if isinstance(self.declared.default, bool):
            return "on" if self.declared.default else "off"
        return self.default_text or "blank"


def _is_box(declared: Declared) -> bool:
    return declared.type == "bool" and not declared.optional


def _word(value: bool | None) -> str:
    return next(word for word, meaning in MAYBE.items() if meaning is value)


def _send(piece: widgets.HTML, html: str) -> None:
    """Only what is new: an opened help would close."""
    if piece.value != html:
        piece.value = html


def _toggle(widget: widgets.DOMWidget, css: str, *, on: bool) -> None:
    if on:
        widget.add_class(css)
    else:
        widget.remove_class(css)
