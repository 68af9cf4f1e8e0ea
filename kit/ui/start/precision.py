"""A precision that this machine lacks, told before the training would refuse it, with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from kit.ui.look import block, escaped
from kit.ui.start.device import Gpu, gpu, precisions

PLAIN = "no (32 bits)"
SETTING = "mixed_precision"


class Precision:
    """One line and one button, shown only where they are needed."""

    def __init__(self, take: Callable[[Mapping[str, Any], str], None]) -> None:
        """take(values, what): puts values into the form as one change."""
        self._take, self._best = take, "no"
        self.line = block()
        self.button = widgets.Button(layout=widgets.Layout(width="auto"))
        self.button.on_click(lambda _: self._mend())
        self.root = widgets.HBox(
            [self.line, self.button],
            layout=widgets.Layout(display="none", flex_flow="row wrap", align_items="center"),
        )
        self.root.add_class("kit-remedy")

    def update(self, asked: str, gpu_ids: str = "") -> list[str]:
        """The problem in words, none where this machine has what is asked."""
        try:
            found = gpu(gpu_ids)
        except ValueError:  # told by the settings' own rules
            return []
        told = problem(asked, found)
        self._best = precisions(found)[-1]
        self.root.layout.display = None if told else "none"
        self.line.value = f"<span>{escaped(told)}</span>"
        self.button.description = f"Use {PLAIN if self._best == 'no' else self._best}"
        return [f"[memory] {SETTING}: {told}"] if told else []

    def forget(self) -> None:
        """Nothing is to be mended."""
        self.root.layout.display = "none"

    def _mend(self) -> None:
        self._take({SETTING: self._best}, f"precision {self._best}")


def problem(asked: str, found: Gpu | None) -> str:
    """Why this precision cannot be trained in here; "" where it can."""
    possible = precisions(found)
    if asked in possible:
        return ""
    where = f"on this {found.name}" if found else "without an NVIDIA GPU"
    return f"{asked} does not work {where}; it can do: {', '.join(possible)}"
