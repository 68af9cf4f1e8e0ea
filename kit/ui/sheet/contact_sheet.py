"""The data set before anything is spent: each picture with its cut, its caption and its findings.

    sheet = ContactSheet(on_change=plan_anew)
    sheet.update(plan)

Drawn from the plan, so it is what the run will train on. A page at a time, and only when it is
open; captions are edited in place, many at once in "All captions", and every edit can be undone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from textwrap import shorten

import ipywidgets as widgets

from kit.dataset.caption_editing import (
    JOURNAL,
    Caption,
    Change,
    Edit,
    caption_change,
    newest_edit,
    save,
    undo,
)
from kit.errors import KitError
from kit.planning import Plan
from kit.ui.form.layouts import Shared
from kit.ui.form.problem_texts import as_lines
from kit.ui.look import block, escaped, grid
from kit.ui.sheet.all_captions import AllCaptions
from kit.ui.sheet.card import Card
from kit.ui.sheet.pictures import PASSING, Pictures
from kit.ui.sheet.preparing import Preparing
from kit.ui.sheet.style import STYLE
from kit.ui.sheet.thumbnails import Thumbnails, Wanted, thumbnail_key

PER_PAGE = 12
LOOK, HIDE = "Look at the pictures", "Hide the pictures"


def _nothing(*_: object) -> None:
    """Nobody waits for it."""


class ContactSheet:
    """A folded sheet that the form keeps up to date with its plan.

    on_change is called after captions or folders on the disk have changed: plan again. take is
    given the settings of folders that were arranged: put them into the form.
    """

    def __init__(
        self,
        on_change: Callable[[], object] = _nothing,
        take: Callable[[dict[str, str]], object] = _nothing,
        *,
        per_page: int = PER_PAGE,
    ) -> None:
        self.on_change, self.per_page = on_change, per_page
        self._pictures: Pictures | None = None
        self._page = 0
        self._is_open = self._is_filling = False
        self._cards: list[Card] = []
        self._shared = Shared()
        self._edit: Edit | None = None  # that can be undone
        self._held: tuple[str, frozenset[Path]] = ("", frozenset())
        self._unsaved: dict[Path, tuple[str, str]] = {}  # what was typed, and why it is not saved
        self.thumbnails = Thumbnails()
        self.open_button = _button(LOOK, "Each picture with its cut and its caption")
        self.all_button = _button("All captions", "Trigger word and tags of many captions at once")
        self.prepare_button = _button("Prepare folders", "Copy pictures into folders; balance them")
        self.undo_button = _button("Undo", "Bring back the captions as they were")
        self.choice = widgets.Dropdown(description="Show", layout=widgets.Layout(width="250px"))
        self.back_button = _button("Back", "The page before")
        self.page = widgets.Dropdown(description="Page", layout=widgets.Layout(width="110px"))
        self.next_button = _button("Next", "The next page")
        self.summary = block(css="kit-quiet")
        self.line = block()
        self.cards = grid([], column=200)
        self.all_captions = AllCaptions(self._chosen, self._advice, self._save)
        self.preparing = Preparing(take, on_change)
        self.root = self._laid_out()
        self._draw()

    def _laid_out(self) -> widgets.VBox:
        for named in (self.choice, self.page):
            named.style.description_width = "initial"
            named.observe(lambda change: self._go(change["owner"]), names="value")
        self.open_button.on_click(lambda _: self._toggle())
        self.all_button.on_click(lambda _: self._toggle_all())
        self.prepare_button.on_click(lambda _: self.preparing.toggle())
        self.undo_button.on_click(lambda _: self._undo())
        self.back_button.on_click(lambda _: self._turn(-1))
        self.next_button.on_click(lambda _: self._turn(1))
        first = _row(
            self.open_button, self.all_button, self.prepare_button, self.choice, self.undo_button
        )
        self._turning = _row(self.back_button, self.page, self.next_button)
        style = widgets.HTML(STYLE, layout=widgets.Layout(height="0", margin="0"))
        parts = [style, first, self.line, self.preparing.root, self.all_captions.root]
        parts += [self.summary, self._turning, self.cards]
        root = widgets.VBox(parts, layout=widgets.Layout(width="100%"))
        root.add_class("kit-sheet")
        return root

    def update(self, plan: Plan | None) -> None:
        """Take a new plan, or none where the form's settings give none."""
        if plan is None:
            self._pictures = None
        else:
            ways = tuple(subset.settings for subset in plan.subsets) or (plan.settings,)
            metadata = tuple(subset.metadata_file for subset in plan.subsets)
            self._pictures = Pictures(plan.images, plan.fits, ways, metadata, plan.seed)
            self.preparing.suggest(plan.settings.folders.train_data_dir)
        self._draw()

    def open(self) -> None:
        """Show the pictures as soon as there is a plan."""
        self._is_open = True
        self._draw()

    def _toggle(self) -> None:
        self._is_open = not self._is_open
        self._hold()
        self._draw()

    def _toggle_all(self) -> None:
        self.all_captions.is_open = not self.all_captions.is_open
        self._is_open = self._is_open or self.all_captions.is_open
        self._draw()

    def _turn(self, pages: int) -> None:
        self._page = (self._page + pages) % self._pages
        self._draw()

    def _go(self, menu: widgets.Dropdown) -> None:
        """To the page that was chosen, or to the first one of other pictures."""
        if self._is_filling:
            return
        self._page = (self.page.value or 0) if menu is self.page else 0
        if menu is self.choice:
            self._hold()
        self._draw()

    @property
    def _numbers(self) -> Sequence[int]:
        """The pictures that the menu names."""
        if self._pictures is None:
            return ()
        choices, name = self._pictures.choices, self.choice.value
        numbers = choices.get(name, next(iter(choices.values())))
        return self._pictures.numbers_of(self._held[1]) if name == self._held[0] else numbers

    def _hold(self) -> None:
        """A picture that gets its caption stays among those without one, until they are left.

        Else the next one would take its place beneath the hands of whoever is typing.
        """
        self._held = ("", frozenset())
        if self._pictures and self.choice.value in PASSING:
            images = self._pictures.images
            self._held = self.choice.value, frozenset(images[i].path for i in self._numbers)

    @property
    def _pages(self) -> int:
        return max(1, math.ceil(len(self._numbers) / self.per_page))

    def _draw(self) -> None:
        pictures = self._pictures if self._is_open else None
        self.open_button.description = HIDE if pictures else LOOK
        self.open_button.disabled = self.all_button.disabled = self._pictures is None
        _show(self.choice, bool(pictures))
        _show(self._turning, bool(pictures) and self._pages > 1)
        self._edit = newest_edit(pictures.folders) if pictures else None
        what = shorten(self._edit.what, 44, placeholder=" ...") if self._edit else ""
        self.undo_button.description = f"Undo: {what}"
        _show(self.undo_button, self._edit is not None)
        if pictures is None:
            self.thumbnails.want([])
            self.cards.children, self.summary.value, self.line.value = [], "", ""
        else:
            self._fill_menus(pictures)
            self._draw_page(pictures)
        self.all_captions.update(is_shown=pictures is not None)

    def _fill_menus(self, pictures: Pictures) -> None:
        """Choosing from a menu of new options must not look like a choice of the person's."""
        self._is_filling = True
        try:
            names = [(f"{name} ({len(which)})", name) for name, which in pictures.choices.items()]
            _offer(self.choice, names, self.choice.value)
            self._page = min(self._page, self._pages - 1)
            pages = [(f"{i + 1} of {self._pages}", i) for i in range(self._pages)]
            _offer(self.page, pages, self._page)
        finally:
            self._is_filling = False

    def _draw_page(self, pictures: Pictures) -> None:
        self.thumbnails.want([])  # no picture of another page comes from now on
        first = self._page * self.per_page
        numbers = self._numbers[first : first + self.per_page]
        while len(self._cards) < len(numbers):
            self._cards.append(Card(self._save_one, self._shared))
        wanted = []
        for card, number in zip(self._cards, numbers, strict=False):
            image, place = pictures.images[number], pictures.fits[number]
            told = pictures.findings[number], pictures.trained_as(number)
            name = pictures.names[number]
            card.show(number, name, image, place, pictures.captions[number], *told)
            if image.path in self._unsaved:
                card.keep(*self._unsaved[image.path])
            thumbnail = image.path, place
            key = thumbnail_key(thumbnail)
            if card.is_drawn(key):
                continue
            take = partial(card.draw, name, key)
            made = self.thumbnails.kept(thumbnail)
            if made is None:
                wanted.append((take, thumbnail))
            else:
                take(made)
        self.cards.children = [card.root for card in self._cards[: len(numbers)]]
        ahead = self._numbers[first + self.per_page : first + 2 * self.per_page]
        after: list[Wanted] = [(pictures.images[i].path, pictures.fits[i]) for i in ahead]
        self.thumbnails.want(wanted, after)
        self.summary.value = f"<div>{escaped(self._told(pictures, first, len(numbers)))}</div>"

    def _told(self, pictures: Pictures, first: int, count: int) -> str:
        chosen = self._numbers
        written = sum(pictures.captions[i].is_written for i in chosen)
        found = sum(bool(pictures.findings[i]) for i in chosen)
        return (
            f"Pictures {first + 1} to {first + count} of {len(chosen)}; {written} have captions, "
            f"{found} have findings. What is cut away is dark."
        )

    def _chosen(self) -> list[Caption]:
        return [self._pictures.captions[i] for i in self._numbers] if self._pictures else []

    def _advice(self, word: str) -> list[str]:
        return self._pictures.trigger_advice(word) if self._pictures else []

    def _save_one(self, card: Card) -> None:
        """What was typed beneath a picture; where it cannot be saved, it stays there."""
        if self._pictures is None:
            return
        caption = self._pictures.captions[card.number]
        try:
            change = caption_change(caption.file, card.text.value)
            if change is not None:
                save([change], f"caption of {caption.image.name}")
        except KitError as error:
            kept = "What you typed stays here; the old caption is trained."
            why = f"{error.found} {kept} {error.do}".strip()
            self._unsaved[caption.image] = card.text.value, why
            card.say(why, is_bad=True)
            return
        self._unsaved.pop(caption.image, None)
        blank = "" if card.text.value.strip() else " It is blank: trained without any words."
        card.say(f"Saved in {caption.file.name}.{blank}" if change else "")
        self._changed("")

    def _save(self, changes: Sequence[Change], what: str) -> None:
        """All captions of an edit.

        Raises: KitError where that cannot be done; then none is changed.
        """
        save(changes, what)
        count = f"{len(changes)} captions" if len(changes) > 1 else "1 caption"
        self._changed(f"{count} changed. The old texts stay in {JOURNAL}, beside them.")

    def _undo(self) -> None:
        if self._edit is None:
            return
        try:
            back, since = undo(self._edit)
        except KitError as error:
            self.line.value = f"<div class='kit-problem'>{as_lines(str(error))}</div>"
            return
        count = f"{len(back)} captions are" if len(back) != 1 else f"{back[0].name} is"
        left = f" {', '.join(f.name for f in since)} was changed since, and stays." if since else ""
        self._unsaved.clear()
        for card in self._cards:
            card.say("")
        self._changed(f"Undone: {self._edit.what}. {count} as before.{left}")

    def _changed(self, told: str) -> None:
        self.line.value = f"<div class='kit-quiet'>{escaped(told)}</div>" if told else ""
        self._edit = newest_edit(self._pictures.folders) if self._pictures else None
        self.on_change()


def _offer(menu: widgets.Dropdown, options: Sequence[tuple[str, object]], value: object) -> None:
    """Options and this value of them, else the first; both stay where nothing has changed."""
    if list(menu.options) != options:
        menu.options = options
    values = [each for _, each in options]
    wanted = value if value in values else values[0]
    if menu.value != wanted:
        menu.value = wanted


def _button(text: str, hint: str) -> widgets.Button:
    return widgets.Button(description=text, tooltip=hint, layout=widgets.Layout(width="auto"))


def _row(*parts: widgets.Widget) -> widgets.HBox:
    layout = widgets.Layout(flex_flow="row wrap", width="100%", align_items="center")
    row = widgets.HBox(list(parts), layout=layout)
    row.add_class("kit-bar")
    return row


def _show(part: widgets.DOMWidget, is_shown: bool) -> None:
    part.layout.display = None if is_shown else "none"
