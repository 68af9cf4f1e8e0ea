"""`kit arrange` and `kit balance` in the form: what they would do is shown, and then done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import ipywidgets as widgets

from kit import catalog
from kit.errors import KitError, SettingsError
from kit.events import Cached, Event, Noticed
from kit.settings import declarations
from kit.settings.setting import Section
from kit.settings.tools import Arrangement, Balance, filled
from kit.ui.form.field import Field
from kit.ui.form.layouts import Shared
from kit.ui.form.problem_texts import as_lines, as_list, by_setting
from kit.ui.look import block, escaped, grid
from kit.ui.sheet.background import back_here, in_thread

# Named, not imported: the form does not know the tools, as it does not know the training.
TOOLS = "kit.tools.arranging:"
OFTEN = 0.25  # seconds between two words about how far it has come


class Tool:
    """The questions of a tool, what it would do, and the button that does it."""

    def __init__(self, title: str, kind: type[Section], shared: Shared, *left: str) -> None:
        """left: questions that the buttons answer."""
        self._kind = kind
        self.fields = {
            declared.name: Field(declared, declared.default, self._answered, shared)
            for declared in kind.all_declared()
            if declared.name not in left
        }
        self.look_button = _button("Show what it would do")
        self.do_button = _button("Do it")
        self.do_button.button_style = "primary"
        self.report = block()
        self.look_button.on_click(lambda _: self.look())
        self.do_button.on_click(lambda _: self._start())
        self._buttons = widgets.HBox(
            [self.look_button, self.do_button], layout=widgets.Layout(flex_flow="row wrap")
        )
        self._buttons.add_class("kit-bar")
        head = block(f"<div class='kit-head'>{escaped(title)}</div>")
        rows = grid([field.row for field in self.fields.values()], column=240)
        self.root = widgets.VBox([head, rows, self._buttons, self.report])
        self._answered()

    def asked(self) -> Any:
        """The answers.

        Raises: SettingsError with everything that is wrong at once.
        """
        return filled(self._kind, **{name: field.value for name, field in self.fields.items()})

    def foreseen(self) -> tuple[list[str], str]:
        """What would be done, a line each, and what the button is called; "": there is nothing."""
        raise NotImplementedError

    def work(self) -> Iterator[Event]:
        """Do it."""
        raise NotImplementedError

    def done(self) -> None:
        """What follows, in the form's own thread."""

    def look(self) -> None:
        """Show what it would do."""
        self._answered()
        try:
            lines, button = self.foreseen()
        except KitError as error:
            self._tell(error)
            return
        self.report.value = as_list(lines)
        self.do_button.description = button or "Do it"
        self.do_button.layout.display = None if button else "none"

    def _answered(self) -> None:
        """Other answers: what was shown holds no more."""
        self.do_button.layout.display = "none"
        self.report.value = ""
        for field in self.fields.values():
            field.mark()

    def _start(self) -> None:
        self.look_button.disabled = self.do_button.disabled = True
        here = back_here()
        in_thread(lambda: self._work(here), "kit-preparing")

    def _work(self, here: Callable[[Callable[[], None]], object]) -> None:
        told, said, error = [], 0.0, None
        try:
            for event in self.work():
                if isinstance(event, Noticed):
                    told.append(event.text)
                elif isinstance(event, Cached) and time.monotonic() - said > OFTEN:
                    said = time.monotonic()
                    self._say(f"{event.done} of {event.total} {event.what}")
        except KitError as found:
            error = found
        here(lambda: self._over(told, error))

    def _over(self, told: list[str], error: KitError | None) -> None:
        self.look_button.disabled = self.do_button.disabled = False
        self._answered()
        if error is not None:
            self._tell(error)
            return
        self.report.value = as_list([self.in_labels(text) for text in told])
        self.done()

    def _say(self, text: str) -> None:
        self.report.value = f"<div class='kit-quiet'>{escaped(text)}</div>"

    def _tell(self, error: KitError) -> None:
        """A wrong answer at its field, everything else beneath the buttons."""
        problems = error.problems if isinstance(error, SettingsError) else ()
        wrong = by_setting(problems, self.fields)
        for name, text in wrong.items():
            self.fields[name].mark(problem=text)
        if not wrong:
            text = as_lines(self.in_labels(str(error)))
            self.report.value = f"<div class='kit-problem'>{text}</div>"

    def in_labels(self, text: str) -> str:
        """A text in which the questions have their labels instead of their names."""
        for name, field in self.fields.items():
            text = text.replace(f"{name} = ", f"{field.declared.label} = ")
        return text


class Arranging(Tool):
    """Pictures into the folders that a training expects; the form can then train on them."""

    def __init__(self, take: Callable[[dict[str, str]], object], shared: Shared) -> None:
        super().__init__("Copy pictures into training folders", Arrangement, shared)
        self._take = take
        self._made: dict[str, str] = {}
        self._settings: dict[str, str] = {}
        self.use_button = _button("Train on these folders")
        self.use_button.on_click(lambda _: self._use())
        self.root.children = [*self.root.children, self.use_button]
        self.use_button.layout.display = "none"

    def foreseen(self) -> tuple[list[str], str]:
        """The folders that are made, and what the form's folders would be."""
        found = catalog.load(f"{TOOLS}arranged")(self.asked())
        self._settings = found.settings
        lines = [f"{folder}: {len(files)} files copied" for folder, files in found.folders.items()]
        labels = {name: declared.label for name, declared in declarations().items()}
        lines += [f"{labels[name]}: {value}" for name, value in found.settings.items()]
        return lines, f"Copy {sum(map(len, found.folders.values()))} files"

    def work(self) -> Iterator[Event]:
        """Copy them."""
        return catalog.load(f"{TOOLS}arrange")(self.asked())

    def done(self) -> None:
        """Offer the folders to the form."""
        self._made = self._settings
        self.use_button.layout.display = None

    def _use(self) -> None:
        self._take(self._made)
        self.use_button.layout.display = "none"


class Balancing(Tool):
    """Repeats with which every folder is seen about equally often."""

    def __init__(self, on_change: Callable[[], object], shared: Shared) -> None:
        super().__init__("Balance the folders of a data set", Balance, shared, "rename")
        self.on_change = on_change

    def foreseen(self) -> tuple[list[str], str]:
        """Every folder with its new name."""
        found = catalog.load(f"{TOOLS}balanced")(self.asked())
        lines = [
            f"{each.folder.name}: {each.images} images, "
            + (f"becomes {each.target.name}" if each.target != each.folder else "stays")
            + f", seen {each.images * each.after} times an epoch"
            for each in found
        ]
        count = sum(each.target != each.folder for each in found)
        return lines, f"Rename {count} folder{'s' * (count != 1)}" if count else ""

    def work(self) -> Iterator[Event]:
        """Rename them."""
        asked = self.asked().model_copy(update={"rename": True})
        return catalog.load(f"{TOOLS}balance")(asked)

    def done(self) -> None:
        """The plan has other repeats now."""
        self.on_change()


class Preparing:
    """A folded part of the contact sheet; it needs no plan, for it is what comes before one."""

    def __init__(
        self, take: Callable[[dict[str, str]], object], on_change: Callable[[], object]
    ) -> None:
        self._take, self._on_change = take, on_change
        self._folder = ""
        self.arranging: Arranging | None = None
        self.balancing: Balancing | None = None
        self.root = widgets.VBox([], layout=widgets.Layout(width="100%", display="none"))
        self.root.add_class("kit-fold")

    def toggle(self) -> None:
        """Open it, or close it; its fields are made when it is first opened."""
        if self.arranging is None:
            shared = Shared()
            self.arranging = Arranging(self._take, shared)
            self.balancing = Balancing(self._on_change, shared)
            self.root.children = [self.arranging.root, self.balancing.root]
            self.suggest(self._folder)
        is_hidden = self.root.layout.display == "none"
        self.root.layout.display = None if is_hidden else "none"

    def suggest(self, folder: str) -> None:
        """The data set that is trained on is the one to balance, where no other was named."""
        field = self.balancing.fields["dataset_folder"] if self.balancing else None
        if field is not None and field.value in ("", self._folder):
            field.value = folder
        self._folder = folder


def _button(text: str) -> widgets.Button:
    return widgets.Button(description=text, layout=widgets.Layout(width="auto"))
