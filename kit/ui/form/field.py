"""A declared setting and its widget: label, "?" with the help, control and problem, as one row.

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


def make_control(declared: Declared, value: Any, make: Callable[..., Any]) -> widgets.Widget:
    """The control for a setting's kind, holding a value; make: see `Shared.make`.

    Numbers are text fields: a number field knows no blank, and hides what was typed.
    """
    if _is_box(declared):
        label, auto = declared.label, {"width": "auto"}
        return make(widgets.Checkbox, bool(value), description=label, indent=False, layout=auto)
    if declared.type == "bool":
        return make(widgets.Dropdown, options=list(MAYBE), value=_word(value), layout=FULL)
    if declared.type == "choice":
        return make(widgets.Dropdown, options=declared.choices, value=value, layout=FULL)
    if declared.type == "text":
        tall = {"width": "100%", "height": "110px"}
        return make(widgets.Textarea, as_text(value), continuous_update=False, layout=tall)
    text = as_text(value)
    return make(widgets.Text, text, continuous_update=True, layout=FULL)  # checked as one types


class Field:
    """One setting's row in the form."""

    def __init__(
        self, declared: Declared, value: Any, on_change: Callable[[], None], shared: Shared
    ) -> None:
        self.declared = declared
        self.problem = self.idle = self.note = ""
        self.control = make_control(declared, value, shared.make)
        width = "auto" if _is_box(declared) else "100%"
        self._head = shared.make(widgets.HTML, self._label(), layout={"width": width})
        self.row = self._laid_out(shared.make)
        self.control.observe(lambda _: on_change(), names="value")

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
        self._head.value = self._label()
        _toggle(self.row, "kit-bad", on=bool(problem))
        _toggle(self.row, "kit-idle", on=bool(idle) and not problem)
        # What is wrong must stay open to be put right, even where it has no effect.
        self.control.disabled = bool(idle) and not problem

    def _laid_out(self, make: Callable[..., Any]) -> widgets.Box:
        css = ("kit-field", f"kit-f-{self.declared.name}")
        if _is_box(self.declared):
            pair = [self.control, self._head]
            return make(widgets.HBox, pair, layout=FULL, css=(*css, "kit-check"))
        wide = {"text": ("kit-full",), "path": ("kit-wide",)}.get(self.declared.type, ())
        return make(widgets.VBox, [self._head, self.control], layout=FULL, css=(*css, *wide))

    def _label(self) -> str:
        declared = self.declared
        name = "" if _is_box(declared) else f"<span>{escaped(declared.label)}</span>"
        unit = f"<em>{escaped(declared.unit)}</em>" if declared.unit else ""
        idle = f"No effect now: {self.idle}.\n\n" if self.idle else ""
        hint = f"{idle}{declared.help}\n\n{declared.name}: {declared.possible}"
        below = ""
        if self.problem or self.note:
            css, text = ("problem", self.problem) if self.problem else ("quiet", self.note)
            below = f"<div class='kit-{css}'>{escaped(text)}</div>"
        return f"<div class='kit-label'>{name}{unit}<i title=\"{escaped(hint)}\">?</i></div>{below}"


def _is_box(declared: Declared) -> bool:
    return declared.type == "bool" and not declared.optional


def _word(value: bool | None) -> str:
    return next(word for word, meaning in MAYBE.items() if meaning is value)


def _toggle(widget: widgets.DOMWidget, css: str, *, on: bool) -> None:
    if on:
        widget.add_class(css)
    else:
        widget.remove_class(css)
