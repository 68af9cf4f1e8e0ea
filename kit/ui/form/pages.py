"""Where each setting's row stands: tabs from the declarations' boxes, in them a grid a section.

A box is "Tab" or "Tab / Inner tab". A section that gives a page more than one row has its docstring
as heading there; a page of one section needs none.
"""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as widgets

from kit.settings import Section, Settings
from kit.ui.form.field import Field
from kit.ui.look import block, escaped, grid

BESIDE = " / "
ALERT = " (!)"
# The guide's order; what it does not know follows in the order of the sections.
FIRST = ("Source Model", "Folders", "Parameters", "Basic", "Advanced")


class Pages:
    """All rows in their tabs, with a mark on each tab that holds a problem."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = fields
        self._marked: set[str] = set()
        self._bars: list[tuple[widgets.Tab, list[str], list[str]]] = []  # tabs, titles, boxes
        self._root: widgets.Tab | None = None

    @property
    def root(self) -> widgets.Tab:
        """The outer tabs, made when they are first shown: half of a form's messages to the page."""
        if self._root is None:
            boxes: dict[str, list[Field]] = {}
            for field in self._fields.values():
                boxes.setdefault(field.declared.box, []).append(field)
            self._root = self._tabs(boxes, "")
            self.mark(self._marked)
        return self._root

    @property
    def is_made(self) -> bool:
        """They have been shown."""
        return self._root is not None

    def mark(self, boxes: set[str]) -> None:
        """Put the mark on the tabs of these boxes, and on no other."""
        self._marked = boxes
        for tabs, titles, paths in self._bars:
            for i, (title, path) in enumerate(zip(titles, paths, strict=True)):
                is_marked = any(box == path or box.startswith(path + BESIDE) for box in boxes)
                text = title + ALERT if is_marked else title
                if tabs.get_title(i) != text:
                    tabs.set_title(i, text)

    def open(self, box: str) -> None:
        """Bring the page of this box to the front."""
        _ = self.root  # so that there are bars
        for tabs, _, paths in self._bars:
            for i, path in enumerate(paths):
                if box == path or box.startswith(path + BESIDE):
                    tabs.selected_index = i

    def _tabs(self, boxes: Mapping[str, list[Field]], above: str) -> widgets.Tab:
        inner: dict[str, dict[str, list[Field]]] = {}
        for box, fields in boxes.items():
            inner.setdefault(box.partition(BESIDE)[0], {})[box.partition(BESIDE)[2]] = fields
        titles = sorted(
            inner, key=lambda title: FIRST.index(title) if title in FIRST else len(FIRST)
        )
        inner = {title: inner[title] for title in titles}
        paths = [above + title for title in titles]
        pages = [
            _page(parts[""]) if list(parts) == [""] else self._tabs(parts, path + BESIDE)
            for path, parts in zip(paths, inner.values(), strict=True)
        ]
        tabs = widgets.Tab(children=pages)
        for i, title in enumerate(titles):
            tabs.set_title(i, title)  # `titles=` is known to ipywidgets 8 only
        self._bars.append((tabs, titles, paths))
        return tabs


def _page(fields: list[Field]) -> widgets.VBox:
    sections: dict[str, list[Field]] = {}
    for field in fields:
        sections.setdefault(field.declared.section, []).append(field)
    groups: list[tuple[str, list[Field]]] = []
    for section, members in sections.items():
        if len(members) == 1 and groups:
            groups[-1][1].extend(members)
        else:
            groups.append((section, list(members)))
    children: list[widgets.Widget] = []
    for section, members in groups:
        if len(groups) > 1:
            children.append(block(f"<div class='kit-head'>{escaped(heading(section))}</div>"))
        children += _group(members)
    page = widgets.VBox(children, layout=widgets.Layout(width="100%"))
    page.add_class("kit-page")
    return page


def heading(section: str) -> str:
    """A section's docstring without its full stop."""
    kind = Settings.model_fields[section].annotation
    assert isinstance(kind, type) and issubclass(kind, Section)
    return (kind.__doc__ or section).strip().splitlines()[0].removesuffix(".")


def _group(fields: list[Field]) -> list[widgets.Widget]:
    """Boxes to tick stand in a grid of their own: between text fields they look ragged."""
    ticks = [f.row for f in fields if isinstance(f.control, widgets.Checkbox)]
    others = [f.row for f in fields if not isinstance(f.control, widgets.Checkbox)]
    grids = []
    if others:
        grids.append(grid(others))
    if ticks:
        grids.append(grid(ticks))
    return grids
