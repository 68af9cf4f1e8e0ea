"""The buttons beside a run: each leaves a request, which the training reads between two steps.

Their callbacks may come on any thread; all that they do is to request, and to say so. A run of
another process is asked by files in its folder, which can fail; then that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import ipywidgets as widgets

from kit.control import RunControl, parse_rate
from kit.errors import KitError
from kit.runs.control_files import ASKS, Asked
from kit.settings.prompts import parse_prompt, skipped_because
from kit.ui.look import block, escaped, named
from kit.ui.monitor.remote import RemoteControl

ALL_PARTS = "all parts"


class Controls:
    """Stop, Pause, Save now, Sample now, and another learning rate."""

    def __init__(self, control: RunControl, told: Callable[[], None]) -> None:
        """told() is called after each request, so that what is shown can follow."""
        self.control, self._told = control, told
        self._rests = False  # as the run tells it, whoever asked
        self.stop = self._button("Stop", "stop", "End after this step", "danger")
        self.pause = self._button("Pause", "pause", "Rest after this step")
        self.save = self._button("Save now", "save", "Write the LoRA as it is after this step")
        self.sample = self._button("Sample now", "image", "Draw after this step")
        self.prompt = widgets.Text(
            placeholder="a prompt for Sample now; blank: the run's own",
            layout=widgets.Layout(width="340px", max_width="100%"),
        )
        self.group = widgets.Dropdown(options=[ALL_PARTS], layout=widgets.Layout(width="130px"))
        self.rate = widgets.Text(placeholder="5e-5 or x0.5", layout=widgets.Layout(width="110px"))
        self.change = self._button("Change rate", "", "Another learning rate from the next step on")
        for control, name in (
            (self.prompt, "Prompt for Sample now"),
            (self.group, "Part whose rate changes"),
            (self.rate, "Another learning rate"),
        ):
            named(control, name, hidden=True)
        self.line = block(css="kit-quiet kit-line")
        self.stop.on_click(lambda _: self._stop())
        self.pause.on_click(lambda _: self._pause())
        self.save.on_click(
            lambda _: self._request(Asked("save"), "The LoRA is saved after this step.")
        )
        self.sample.on_click(lambda _: self._sample())
        self.change.on_click(lambda _: self._change())
        bars = [
            self._bar(self.pause, self.stop, self.save),
            self._bar(self.prompt, self.sample),
            self._bar(self.group, self.rate, self.change),
        ]
        self.root = widgets.VBox([self._bar(*bars), self.line])

    def update(self, *, rests: bool, groups: Iterable[str]) -> None:
        """Follow what the run tells: whether it rests, and which parts have a rate."""
        if self._rests and not rests and isinstance(self.control, RemoteControl):
            self.control.go_on()  # whoever asked it
        self._rests = rests
        told = ("Go on", "play") if rests else ("Pause", "pause")
        if told != (self.pause.description, self.pause.icon):
            self.pause.description, self.pause.icon = told
            self.line.value = "It rests, and its state is kept." if rests else ""
        options = (ALL_PARTS, *groups)
        if tuple(self.group.options) != options:
            self.group.options = options
        if self.control.stop_requested:
            self.stop.disabled = self.pause.disabled = True

    def end(self) -> None:
        """The run is over: nothing can be requested any more."""
        self.root.layout.display = "none"

    def _stop(self) -> None:
        if self._request(Asked("stop"), "It ends after this step, and saves."):
            self.stop.disabled = self.pause.disabled = True

    def _pause(self) -> None:
        if self.control.pause_requested or self._rests:
            self._request(Asked("go-on"), "")
        else:
            self._request(Asked("pause"), "It rests after this step.")

    def _sample(self) -> None:
        text = self.prompt.value.strip()
        try:
            skipped = parse_prompt(text).skipped if text else ()
        except ValueError as error:
            self._say(str(error), is_bad=True)
            return
        told = f" {', '.join(skipped)} {skipped_because(len(skipped))}." if skipped else ""
        asked = Asked("sample", prompt=text)
        self._request(asked, f"Samples are drawn after this step.{told}")

    def _change(self) -> None:
        group = "" if self.group.value == ALL_PARTS else str(self.group.value)
        try:
            rate = parse_rate(self.rate.value, group)
        except ValueError as error:
            self._say(str(error), is_bad=True)
            return
        asked = Asked("rate", part=rate.group, factor=rate.factor, rate=rate.rate)
        self._request(asked, "The rate changes after this step.")

    def _request(self, asked: Asked, text: str) -> bool:
        """Ask, and say so; returns whether somebody was asked."""
        try:
            if isinstance(self.control, RemoteControl):
                self.control.ask(asked)
            else:
                ASKS[asked.what](self.control, asked)
        except KitError as error:
            self._say(f"{error.found} {error.possible}", is_bad=True)
            return False
        self._say(text)
        return True

    def _say(self, text: str, *, is_bad: bool = False) -> None:
        css = " class='kit-problem'" if is_bad else ""
        self.line.value = f"<span{css}>{escaped(text)}</span>" if text else ""
        self._told()

    @staticmethod
    def _button(text: str, icon: str, tooltip: str, style: str = "") -> widgets.Button:
        return widgets.Button(
            description=text,
            icon=icon,
            tooltip=tooltip,
            button_style=style,
            layout=widgets.Layout(width="auto"),
        )

    @staticmethod
    def _bar(*children: widgets.Widget) -> widgets.HBox:
        box = widgets.HBox(
            children, layout=widgets.Layout(flex_flow="row wrap", align_items="center")
        )
        box.add_class("kit-bar")
        return box
