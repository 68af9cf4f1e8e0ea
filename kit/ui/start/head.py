"""The form's first line: the machine, and what to begin with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

import ipywidgets as widgets

from kit.hosts import Gpu, host
from kit.launching.gpus import there
from kit.settings import Settings, declarations
from kit.settings.diffs import Change, diff
from kit.ui.form.remembered import example
from kit.ui.look import block, escaped
from kit.ui.start.autofill import EXAMPLE_ANSWERS, Autofill
from kit.ui.start.memory import Memory
from kit.ui.start.offer import Offer
from kit.ui.start.start import Start

EXAMPLE = "The example"


class Head:
    """Own pictures, the example, a settings file, and Undo."""

    def __init__(
        self,
        start: Start,
        autofill: Autofill,
        memory: Memory,
        *,
        readable: Callable[[], Settings],
        fill: Callable[[Settings, str], None],
        refilled: Callable[[str], None],
        filling: Callable[[Callable[[], None]], None],
        files: widgets.Box,
    ) -> None:
        """readable() reads the form, fill() puts settings into it.

        filling(job) does a job that changes many fields; refilled(what) checks and plans after it.
        files: the place of the row that loads and saves settings, while it is not up here. What
        stands twice would have one name twice.
        """
        self._start, self._autofill, self._memory = start, autofill, memory
        self._readable, self._fill = readable, fill
        self._refilled, self._filling = refilled, filling
        self.own_button = _button("Own pictures", "image", "Begin with your own pictures")
        self.example_button = _button(
            "Try the example",
            "flask",
            "Twelve drawn pictures and a small base model that comes with LoRA Kit",
        )
        self.load_button = _button("Load settings", "folder-open", "From a file of any trainer")
        self.undo_button = _button("Undo", "undo", "Nothing to undo")
        self.offer = Offer()
        self._below = files
        self._files = widgets.VBox([], layout=widgets.Layout(display="none", width="100%"))
        self._files.add_class("kit-offer")
        self.own_button.on_click(lambda _: self.own_pictures())
        self.example_button.on_click(lambda _: self.try_example())
        self.load_button.on_click(lambda _: self._toggle_files())
        self.undo_button.on_click(lambda _: self.undo())
        buttons = widgets.HBox(
            [self.own_button, self.example_button, self.load_button, self.undo_button],
            layout=widgets.Layout(flex_flow="row wrap"),
        )
        line = widgets.HBox(
            [block(_machine(), css="kit-machine"), buttons],
            layout=widgets.Layout(flex_flow="row wrap", align_items="center", width="100%"),
        )
        line.add_class("kit-head-line")
        parts = [line, self._files, self.offer.root]
        self.root = widgets.VBox(parts, layout=widgets.Layout(width="100%"))
        memory.changed.append(self._tell_undo)
        self._tell_undo()

    def own_pictures(self) -> None:
        """Open the questions; what is still the example's goes."""
        self.offer.forget()
        self._start.fold(is_folded=False)
        if self._autofill.holds_example():
            self._autofill.is_following = True
            self._filling(self._autofill.leave_example)
            self._refilled("own pictures in place of the example")

    def try_example(self) -> None:
        """Fill the example in; where something of the person's would go, that is shown first."""
        changes = diff(self._readable(), example())
        if any(self._is_mine(change) for change in changes):
            self.offer.show(EXAMPLE, changes, self._take_example)
        else:
            self._take_example()

    def _is_mine(self, change: Change) -> bool:
        """The person's own value would go: neither a default nor what the start has filled in."""
        is_filled = change.name in self._autofill.filled.values
        return not is_filled and change.before != declarations()[change.name].default

    def undo(self) -> None:
        """Take the newest change back."""
        step = self._memory.undo.back()
        if step is not None:
            self.offer.forget()
            self._filling(lambda: self._memory.bring_back(step.before))
            self._refilled("")

    def _take_example(self) -> None:
        self._start.answers = EXAMPLE_ANSWERS
        self._fill(example(), EXAMPLE)

    def _toggle_files(self) -> None:
        there, here = self._files, self._below
        if here.children:
            there, here = here, there
        there.children, here.children = (), there.children
        self._files.layout.display = None if self._files.children else "none"

    def _tell_undo(self) -> None:
        steps = self._memory.undo.steps
        self.undo_button.disabled = not steps
        self.undo_button.tooltip = f"Take back: {steps[-1].what}" if steps else "Nothing to undo"


def _machine() -> str:
    """Name, GPU and free space, as HTML."""
    found, place = there(), host().output_folder.absolute()
    disk = next(path for path in (place, *place.parents) if path.exists())
    facts = (
        _gpus(found) if found else "no NVIDIA GPU",
        f"{shutil.disk_usage(disk).free / 1e9:.0f} GB free",
    )
    told = escaped(", ".join(facts))
    return f"<b>LoRA Kit</b> <span class='kit-quiet'>{told}</span>"


def _gpus(found: Sequence[Gpu]) -> str:
    """Tesla T4, 16 GB; of several that are alike 2 x Tesla T4, 16 GB."""
    told = [f"{gpu.name}, {gpu.megabytes / 1000:.0f} GB" for gpu in found]
    counted = {text: told.count(text) for text in told}
    return "; ".join(f"{n} x {text}" if n > 1 else text for text, n in counted.items())


def _button(text: str, icon: str, hint: str) -> widgets.Button:
    return widgets.Button(
        description=text, icon=icon, tooltip=hint, layout=widgets.Layout(width="auto")
    )
