"""The GPUs that are there, and which of them train: shown where there are several.

One is the default. What is chosen stands in the fields `num_processes` and `gpu_ids`, where it can
be seen and changed, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets

from kit.errors import KitError
from kit.hosts import Gpu, host
from kit.launching.command import launch_for
from kit.launching.gpus import there
from kit.settings import Machine
from kit.settings.effective import gpu_ids
from kit.ui.look import block, escaped
from kit.ui.start.remedies import Remedy

Take = Callable[[Mapping[str, Any], str], None]


class Gpus:
    """A switch for each GPU, and a button for all; nothing is shown where there is one or none."""

    def __init__(self, take: Take, gpus: Sequence[Gpu] | None = None) -> None:
        """take(values, what): puts values into the form as one change."""
        self._take, self._gpus = take, tuple(there() if gpus is None else gpus)
        self._is_following = False
        self.switches = [self._switch(number, gpu) for number, gpu in enumerate(self._gpus)]
        self.all_button = widgets.Button(layout=widgets.Layout(width="auto"))
        self.all_button.on_click(lambda _: self._choose_all())
        self.line = block(css="kit-quiet")
        self.root = widgets.HBox(
            [block("Train on", css="kit-said"), *self.switches, self.all_button, self.line],
            layout=widgets.Layout(flex_flow="row wrap", align_items="center", width="100%"),
        )
        self.root.add_class("kit-gpus")
        self.root.layout.display = None if len(self._gpus) > 1 else "none"
        self.follow(Machine())

    @property
    def chosen(self) -> list[int]:
        """The numbers of those that train."""
        return [number for number, switch in enumerate(self.switches) if switch.value]

    def follow(self, machine: Machine) -> None:
        """Show what the settings say."""
        chosen = self._chosen(machine)
        self._is_following = True
        try:
            for number, switch in enumerate(self.switches):
                switch.value = number in chosen
                switch.icon = "check" if switch.value else ""
        finally:
            self._is_following = False
        count = len(self._gpus)
        is_all = len(chosen) == count
        both = "both" if count == 2 else f"all {count}"
        self.all_button.description = "Train on one" if is_all else f"Train on {both}"
        self.all_button.tooltip = "The first one alone" if is_all else "One process on each"
        self.line.value = escaped(_told(len(chosen), count))

    def _chosen(self, machine: Machine) -> list[int]:
        try:
            launch = launch_for(machine, self._gpus)
            first = [*gpu_ids(machine.gpu_ids), 0][:1]
        except (KitError, ValueError):  # what is wrong is said elsewhere
            return []
        if launch is None:
            return first
        return list(launch.gpus or range(launch.here))

    def _choose_all(self) -> None:
        is_all = all(switch.value for switch in self.switches)
        numbers = [0] if is_all else list(range(len(self._gpus)))
        self._take(values_of(numbers), self.all_button.description)

    def _pressed(self, number: int) -> None:
        if self._is_following:
            return
        numbers = [n for n, switch in enumerate(self.switches) if switch.value]
        if not numbers:  # somebody must train
            self._is_following = True
            self.switches[number].value = True
            self._is_following = False
            return
        self._take(values_of(numbers), "the GPUs")

    def _switch(self, number: int, gpu: Gpu) -> widgets.ToggleButton:
        switch = widgets.ToggleButton(
            description=f"GPU {number}: {gpu.name}, {gpu.megabytes / 1000:.0f} GB",
            tooltip="Whether it trains",
            layout=widgets.Layout(width="auto"),
        )
        switch.observe(lambda _: self._pressed(number), names="value")
        return switch


def values_of(numbers: Sequence[int]) -> dict[str, Any]:
    """The settings that let these GPUs train, one process on each."""
    are_first = list(numbers) == list(range(len(numbers)))
    return {
        "num_processes": len(numbers),
        "num_machines": 1,
        "multi_gpu": False,
        "gpu_ids": "" if are_first else ",".join(map(str, numbers)),
    }


def too_few(machine: Machine) -> Remedy | None:
    """What is asked of more GPUs than there are, with the button for as many as there are."""
    gpus = there()
    try:
        launch_for(machine, gpus)
    except ValueError:  # no list of numbers, which a rule tells
        return None
    except KitError as error:
        values = values_of(range(len(gpus)))
        count = "1 GPU" if len(gpus) == 1 else f"{len(gpus)} GPUs"
        return Remedy(error.found, f"Train on {count}", values)
    return None


def _told(chosen: int, count: int) -> str:
    if chosen > 1:
        return (
            f"One process on each: a step learns from {chosen} times as many pictures, and an "
            f"epoch has 1/{chosen} of the steps."
        )
    where = "Kaggle lends this notebook" if host().name == "kaggle" else "Here are"
    return f"{where} {count} GPUs; one trains, as long as you do not choose more."
