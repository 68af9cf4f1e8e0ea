"""The strip above the form: what to begin with - a base model, a preset, or the example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from kit import catalog
from kit.errors import SettingsError
from kit.presets import presets
from kit.settings import Settings
from kit.settings.diffs import Change, diff
from kit.ui.form.field import Field, as_text
from kit.ui.form.remembered import example
from kit.ui.look import block, escaped, named

CUSTOM = "custom: what stands in Pretrained model name or path"
NO_PRESET = "none"


class Starters:
    """Quick pick, presets with what they would change, and the example."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        fill: Callable[[Settings], None],
        model: Field,
    ) -> None:
        """settings() reads the form, or raises; fill() puts settings into it."""
        self._settings, self._fill, self._model = settings, fill, model
        self._is_following = False
        self.quick_pick = widgets.Dropdown(options=[CUSTOM, *catalog.QUICK_PICKS], layout=_full())
        self.preset = widgets.Dropdown(options=[NO_PRESET, *presets()], layout=_full())
        self.apply_button = _button("Apply preset", "Fill in what the preset decides")
        self.example_button = _button(
            "Use the example",
            "Fill the form with twelve drawn pictures and a small base model that comes with "
            "LoRA Kit",
        )
        self.line = block(css="kit-quiet")
        self.quick_pick.observe(lambda _: self._pick(), names="value")
        self.preset.observe(lambda _: self.show_changes(), names="value")
        self.apply_button.on_click(lambda _: self._apply())
        self.example_button.on_click(lambda _: self._take_example())
        model.control.observe(lambda _: self._follow(), names="value")
        strip = widgets.HBox(
            [
                _labelled("Model Quick Pick", self.quick_pick, "330px"),
                _labelled("Preset", self.preset, "200px"),
                self.apply_button,
                self.example_button,
            ],
            layout=widgets.Layout(flex_flow="row wrap", align_items="flex-end", width="100%"),
        )
        strip.add_class("kit-bar")
        self.root = widgets.VBox([strip, self.line], layout=widgets.Layout(width="100%"))
        self._follow()
        self.show_changes()

    def show_changes(self) -> None:
        """What the chosen preset would change in the form as it stands."""
        name = self.preset.value
        self.apply_button.layout.display = "none" if name == NO_PRESET else None
        if name == NO_PRESET:
            self.line.value = ""
            return
        preset = presets()[name]
        try:
            settings = self._settings()
        except SettingsError:
            told = "its changes are shown once every value above can be read"
        else:
            told = _as_table(diff(settings, preset.applied_to(settings)))
        self.line.value = f"<div>{escaped(name)}: {escaped(preset.about)}</div>{told}"

    def _apply(self) -> None:
        try:
            settings = self._settings()
        except SettingsError:
            settings = Settings()  # what cannot be read cannot be kept
        self._fill(presets()[self.preset.value].applied_to(settings))
        self.show_changes()

    def _pick(self) -> None:
        """A model's name, and the size that its family was made for."""
        if self._is_following or self.quick_pick.value == CUSTOM:
            return
        name = self.quick_pick.value
        family = catalog.FAMILIES[catalog.QUICK_PICKS[name]]
        self._model.value = name
        side = family.native_size
        self.line.value = escaped(
            f"{name} is a {family.label}; images of about {side} x {side} suit it (Max resolution)."
        )

    def _follow(self) -> None:
        """Show the pick that the model's field names, if it is one."""
        name = str(self._model.value)
        self._is_following = True
        self.quick_pick.value = name if name in catalog.QUICK_PICKS else CUSTOM
        self._is_following = False

    def _take_example(self) -> None:
        self._fill(example())
        self.line.value = "The example: twelve pictures of a ball, a few minutes on any computer."


def _as_table(changes: list[Change]) -> str:
    """Each change with both values."""
    if not changes:
        return "<div>Nothing would change: the form holds its values.</div>"
    rows = "".join(
        f"<tr><td>{escaped(c.label)}</td><td>{_shown(c.before)}</td><td>{_shown(c.after)}</td></tr>"
        for c in changes
    )
    head = "<tr><th>would change</th><th>from</th><th>to</th></tr>"
    return f"<table class='kit-changes'>{head}{rows}</table>"


def _shown(value: Any) -> str:
    words = {True: "on", False: "off"}
    text = words[value] if isinstance(value, bool) else as_text(value)
    return escaped(text) or "(blank)"


def _labelled(label: str, control: widgets.Widget, width: str) -> widgets.VBox:
    box = widgets.VBox([named(control, label)], layout=widgets.Layout(width=width))
    box.add_class("kit-field")
    return box


def _full() -> widgets.Layout:
    return widgets.Layout(width="100%", min_width="0")


def _button(text: str, hint: str) -> widgets.Button:
    return widgets.Button(description=text, tooltip=hint, layout=widgets.Layout(width="auto"))
