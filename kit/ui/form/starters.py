"""The strip above all settings: presets with what they would change, and the way to defaults."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import ipywidgets as widgets

from kit.presets import presets
from kit.settings import Settings
from kit.settings.diffs import diff
from kit.ui.look import block, escaped
from kit.ui.start.offer import Fill, Offer

NO_PRESET = "none"


class Starters:
    """Presets and the reset; each shows what it would change before it is done."""

    def __init__(self, settings: Callable[[], Settings], fill: Fill) -> None:
        """settings() reads the form as far as it can be read; fill() puts settings into it."""
        self._settings, self._fill = settings, fill
        self.preset = widgets.Dropdown(
            options=[NO_PRESET, *presets()],
            description="Preset",
            layout=widgets.Layout(width="290px"),
            style={"description_width": "initial"},
        )
        self.reset_button = widgets.Button(
            description="Reset to defaults",
            tooltip="Every setting to its default; what would change is shown first",
            layout=widgets.Layout(width="auto"),
        )
        self.line = block(css="kit-quiet")
        self.offer = Offer()
        self.preset.observe(lambda _: self.show_changes(), names="value")
        self.reset_button.on_click(lambda _: self._reset())
        self.root = widgets.VBox([self.line, self.offer.root], layout=widgets.Layout(width="100%"))

    def show_changes(self) -> None:
        """What the chosen preset would change in the form as it stands."""
        name = self.preset.value
        if name == NO_PRESET:
            self.line.value = ""
            self.offer.forget()
            return
        preset, now = presets()[name], self._settings()
        self.line.value = f"<div>{escaped(name)}: {escaped(preset.about)}</div>"
        after, what = preset.applied_to(now), f"The preset {name}"
        self.offer.show(what, diff(now, after), partial(self._fill, after, what))

    def forget(self) -> None:
        """The form has changed: what was offered is no longer what would change."""
        self.preset.value = NO_PRESET
        self.offer.forget()

    def _reset(self) -> None:
        self.preset.value = NO_PRESET
        after, what = Settings(), "The reset"
        self.offer.show(what, diff(self._settings(), after), partial(self._fill, after, what))
