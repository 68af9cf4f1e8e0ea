"""The strip above the form: what to begin with - the example, or a base model by name."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets

from kit import catalog
from kit.settings import Settings
from kit.ui.look import block, escaped
from kit.ui.widgets import Field

CUSTOM = "custom: what stands in Pretrained model name or path"


class Starters:
    """Example and model quick pick; each fills in what it stands for."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        fill: Callable[[Settings], None],
        model: Field,
    ) -> None:
        """settings() reads the form, or raises; fill() puts settings into it."""
        self._settings, self._fill, self._model = settings, fill, model
        self._is_following = False
        self.quick_pick = widgets.Dropdown(
            options=[CUSTOM, *catalog.QUICK_PICKS], layout=widgets.Layout(width="100%")
        )
        self.example_button = widgets.Button(
            description="Use the example",
            tooltip="Fill the form with twelve drawn pictures and a small base model that comes "
            "with LoRA Kit",
            layout=widgets.Layout(width="auto"),
        )
        self.line = block(css="kit-quiet")
        self.quick_pick.observe(lambda _: self._pick(), names="value")
        self.example_button.on_click(lambda _: self._take_example())
        model.control.observe(lambda _: self._follow(), names="value")
        label = block("<div class='kit-label'><span>Model Quick Pick</span></div>")
        pick = widgets.VBox([label, self.quick_pick], layout=widgets.Layout(width="420px"))
        pick.add_class("kit-field")
        strip = widgets.HBox(
            [pick, self.example_button],
            layout=widgets.Layout(flex_flow="row wrap", align_items="flex-end", width="100%"),
        )
        strip.add_class("kit-bar")
        self.root = widgets.VBox([strip, self.line], layout=widgets.Layout(width="100%"))
        self._follow()

    def _pick(self) -> None:
        """A model's name, and the size that its family was made for, where it is not set yet."""
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
        example = catalog.load("kit.demo:settings")
        self._fill(example())
        self.line.value = "The example: twelve pictures of a ball, a few minutes on any computer."
