"""Many captions at once: the trigger word, and the tags of the whole set by how often they occur.

Every edit first shows what it would do, each caption before and after; then it is done, or not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

import ipywidgets as widgets

from kit.dataset.caption_editing import Caption, Change, Proposal, caption_change, proposal
from kit.dataset.caption_tags import (
    TagStyle,
    tag_counts,
    with_tag,
    with_tags_replaced,
    with_trigger,
    without_tags,
    without_trigger,
)
from kit.errors import KitError
from kit.ui.form.problem_texts import as_lines
from kit.ui.look import block, escaped

SHOWN = 8  # captions before and after
MOST_TAGS = 400  # in the list; Find reaches the others
FRONT, END = "in front", "at the end"
Rewrite = Callable[[str, TagStyle], str]


class AllCaptions:
    """A folded part of the contact sheet.

    chosen gives the captions of the pictures that are looked at; advice says what the settings make
    of a trigger word; save writes changes under a name, and raises KitError where it cannot.
    """

    def __init__(
        self,
        chosen: Callable[[], Sequence[Caption]],
        advice: Callable[[str], list[str]],
        save: Callable[[Sequence[Change], str], None],
    ) -> None:
        self._chosen, self._advice, self._save = chosen, advice, save
        self.is_open = False
        self._asked: tuple[str, Rewrite, str] | None = None  # what, how, and what else is said
        self._counts: list[tuple[str, int]] = []
        self.trigger = _text("Word for all", "zxdog")  # the start's is the trigger word
        self.find = _text("Find a tag", "")
        self.tags = widgets.SelectMultiple(
            description="Tags", rows=9, layout=widgets.Layout(width="100%")
        )
        self.new = _text("New tag", "")
        self.place = widgets.Dropdown(description="Place", options=(END, FRONT))
        self.add_trigger = _button("Add to all")
        self.remove_trigger = _button("Remove from all")
        self.add = _button("Add the new tag to all")
        self.remove = _button("Remove the chosen tags")
        self.replace = _button("Replace them by the new tag")
        self.preview = block()
        self.confirm, self.cancel = _button("Change"), _button("Cancel")
        self.confirm.button_style = "primary"
        self.root = self._laid_out()
        self._show()

    def update(self, *, is_shown: bool) -> None:
        """The tags as they are now, and what was asked for as it would be now."""
        is_shown = is_shown and self.is_open
        self.root.layout.display = None if is_shown else "none"
        if not is_shown:
            self._asked = None
            return
        self._counts = tag_counts((each.text, each.style) for each in self._chosen())
        self._list_tags()
        self._show()

    def _laid_out(self) -> widgets.VBox:
        for named in (self.trigger, self.find, self.tags, self.new, self.place):
            named.style.description_width = "90px"
        self.find.observe(lambda _: self._list_tags(), names="value")
        for button, act in (
            (self.add_trigger, self._add_trigger),
            (self.remove_trigger, self._remove_trigger),
            (self.add, self._add),
            (self.remove, self._remove),
            (self.replace, self._replace),
            (self.confirm, self._do),
            (self.cancel, self._forget),
        ):
            button.on_click(lambda _, act=act: act())
        self.tags.add_class("kit-tags")
        trigger = _column(self.trigger, _row(self.add_trigger, self.remove_trigger))
        adding = _column(self.new, _row(self.place, self.add))
        tags = _column(self.find, self.tags, _row(self.remove, self.replace))
        self._buttons = _row(self.confirm, self.cancel)
        layout = widgets.Layout(
            grid_template_columns="repeat(auto-fit, minmax(min(100%, 320px), 1fr))",
            grid_gap="6px 24px",
            width="100%",
        )
        columns = widgets.GridBox([_column(trigger, adding), tags], layout=layout)
        columns.add_class("kit-grid")
        parts = [columns, self.preview, self._buttons]
        root = widgets.VBox(parts, layout=widgets.Layout(width="100%"))
        root.add_class("kit-fold")
        return root

    def _list_tags(self) -> None:
        chosen, words = self.tags.value, self.find.value.casefold().split()
        found = [pair for pair in self._counts if all(w in pair[0].casefold() for w in words)]
        options = [(f"{tag}  ({count})", tag) for tag, count in found[:MOST_TAGS]]
        if list(self.tags.options) != options:
            self.tags.options = options
            self.tags.value = [tag for _, tag in options if tag in chosen]

    def _add_trigger(self) -> None:
        if word := self._word(self.trigger, "Write the trigger word first."):
            self._ask(
                f"add {word} in front",
                lambda text, style: with_trigger(text, word, style),
                " ".join(self._advice(word)),
            )

    def _remove_trigger(self) -> None:
        if word := self._word(self.trigger, "Write the word that goes first."):
            self._ask(f"remove {word}", lambda text, style: without_trigger(text, word, style))

    def _add(self) -> None:
        if tag := self._word(self.new, "Write the new tag first."):
            front = self.place.value == FRONT
            self._ask(
                f"add {tag} {self.place.value}",
                lambda text, style: with_tag(text, tag, style, in_front=front),
            )

    def _remove(self) -> None:
        if tags := self._picked():
            self._ask(
                f"remove {', '.join(tags)}", lambda text, style: without_tags(text, tags, style)
            )

    def _replace(self) -> None:
        tags = self._picked()
        if tags and (new := self._word(self.new, "Write the new tag first.")):
            self._ask(
                f"{', '.join(tags)} becomes {new}",
                lambda text, style: with_tags_replaced(text, tags, new, style),
            )

    def _word(self, field: widgets.Text, missing: str) -> str:
        word = " ".join(field.value.split())
        if not word:
            self._forget()
            self._say(missing)
        return word

    def _picked(self) -> tuple[str, ...]:
        if not self.tags.value:
            self._forget()
            self._say("Choose one or more tags in the list first.")
        return tuple(self.tags.value)

    def _ask(self, what: str, rewrite: Rewrite, more: str = "") -> None:
        self._asked = (what, rewrite, more)
        self._show()

    def _forget(self) -> None:
        self._asked = None
        self._show()

    def _say(self, text: str) -> None:
        self.preview.value = f"<div class='kit-problem'>{as_lines(text)}</div>"

    def _show(self) -> None:
        """What would be done, with the button that does it."""
        self._buttons.layout.display = "none"
        if self._asked is None:
            self.preview.value = ""
            return
        what, rewrite, more = self._asked
        found = proposal(self._chosen(), rewrite)
        self.preview.value = _in_words(what, found, more)
        if count := len(found.changes):
            captions = "1 caption" if count == 1 else f"{count} captions"
            self.confirm.description = f"Change {captions}"
            self._buttons.layout.display = None

    def _do(self) -> None:
        if self._asked is None:
            return
        what, rewrite, _ = self._asked
        try:
            found = proposal(self._chosen(), rewrite)
            changes = [caption_change(caption.file, text) for caption, text in found.changes]
            self._save([change for change in changes if change], what)
        except KitError as error:
            self._say(str(error))
            return
        self._forget()


def _in_words(what: str, found: Proposal, more: str) -> str:
    count, parts = len(found.changes), []
    every = count + found.same + found.locked
    if found.new_files:
        files = "1 picture gets its" if found.new_files == 1 else f"{found.new_files} pictures get their"
        parts.append(f"{files} first caption file")
    if found.locked:
        parts.append(f"{found.locked} stand in a metadata file, and stay")
    change = f"{count} of {every} captions would change"
    told = f"{what[:1].upper()}{what[1:]}: {'; '.join([change, *parts])}. {more}"
    rows = "".join(_change(caption, text) for caption, text in found.changes[:SHOWN])
    rest = f"<div class='kit-change'>and {count - SHOWN} more</div>" if count > SHOWN else ""
    return f"<div role='status'>{escaped(told)}</div>{rows}{rest}"


def _change(caption: Caption, after: str) -> str:
    return (
        f"<div class='kit-change'><b>{escaped(caption.image.name)}</b> "
        f"{marked(caption.text, after)}</div>"
    )


def marked(before: str, after: str) -> str:
    """Both texts in one, as HTML: words that go are struck out, words that come are underlined."""
    old, new = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (before, after))
    parts = []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, come = escaped("".join(old[a:b])), escaped("".join(new[c:d]))
        if kind == "equal":
            parts.append(gone)
            continue
        parts += [f"<del>{gone}</del>"] if gone else []
        parts += [f"<ins>{come}</ins>"] if come else []
    return "".join(parts).replace("\n", "<br>")


def _text(name: str, example: str) -> widgets.Text:
    layout = widgets.Layout(width="100%")
    return widgets.Text(description=name, placeholder=example, layout=layout)


def _button(text: str) -> widgets.Button:
    return widgets.Button(description=text, layout=widgets.Layout(width="auto"))


def _row(*parts: widgets.Widget) -> widgets.HBox:
    row = widgets.HBox(list(parts), layout=widgets.Layout(flex_flow="row wrap", width="100%"))
    row.add_class("kit-bar")
    return row


def _column(*parts: widgets.Widget) -> widgets.VBox:
    column = widgets.VBox(list(parts), layout=widgets.Layout(width="100%", min_width="0"))
    column.add_class("kit-field")
    return column
