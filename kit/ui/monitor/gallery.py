"""Sample pictures: a row for each prompt, a column for each step, the base model's at the left.

All rounds can be looked at, a page of them at a time: what is not on the page is not sent.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import ipywidgets as widgets

from kit.errors import KitError
from kit.events import Sampled
from kit.ui.look import block, escaped
from kit.ui.monitor.downloads import buttons, download
from kit.ui.monitor.pictures import Samples, is_asked, locate, picture_html, rows_of
from kit.ui.monitor.sheet import save_sheet

STEPS_SHOWN = 4  # a page's rounds, besides step 0
PROMPTS_SHOWN = 8  # of the run's own, and as many of those that were typed while it trained


def shown_rows(
    samples: Samples, *, page: int = 0, every_prompt: bool = False
) -> dict[int, list[Sampled]]:
    """By the prompt's place: the base model's picture if there is one, and a page of the others.

    page: 0 the newest rounds, 1 those before. Each prompt has its own: what was asked for once
    stays while others are drawn anew. Without `every_prompt` the run's first prompts are shown,
    and those that were asked for last.
    """
    rows = rows_of(samples)
    asked = [index for index, drawn in rows.items() if is_asked(drawn)]
    asked.sort(key=lambda index: (rows[index][-1].step, index))
    own = sorted(set(rows) - set(asked))
    if not every_prompt:
        own, asked = own[:PROMPTS_SHOWN], asked[-PROMPTS_SHOWN:]
    return {index: _on_page(rows[index], page) for index in sorted([*own, *asked])}


def pages_of(samples: Samples) -> int:
    """How many pages the prompt that was drawn most often fills."""
    rounds = (sum(s.step > 0 for s in drawn) for drawn in rows_of(samples).values())
    return max(1, math.ceil(max(rounds, default=1) / STEPS_SHOWN))


def _on_page(drawn: Sequence[Sampled], page: int) -> list[Sampled]:
    """A prompt with fewer pages stays on its last one."""
    first = [sample for sample in drawn if sample.step == 0]
    later = [sample for sample in drawn if sample.step > 0]
    page = min(page, max(0, math.ceil(len(later) / STEPS_SHOWN) - 1))
    end = len(later) - page * STEPS_SHOWN
    return [*first, *later[max(0, end - STEPS_SHOWN) : end]]


class Gallery:
    """The pictures as widgets; a picture once shown is not sent again while it is on the page."""

    def __init__(self) -> None:
        self._samples: Samples = {}
        self._run_dir: Path | None = None
        self._page = 0
        self._cells: dict[str, widgets.HTML] = {}
        self._thumbnails: dict[str, bytes] = {}
        self._rows: dict[int, tuple[widgets.HTML, widgets.HBox]] = {}
        self._cell_layout = widgets.Layout(width="auto")
        self.older = _button("Older", "Rounds before these")
        self.newer = _button("Newer", "Rounds after these")
        self.every = widgets.ToggleButton(description="", layout=widgets.Layout(width="auto"))
        self.sheet = _button("All in one picture", "Write prompts x steps as one labelled picture")
        self.line, self.told = widgets.HTML(), widgets.HTML()
        self.taking = widgets.HBox([])
        self.older.on_click(lambda _: self._turn(1))
        self.newer.on_click(lambda _: self._turn(-1))
        self.every.observe(lambda _: self._draw(), names="value")
        self.sheet.on_click(lambda _: self._save_sheet())
        self.bar = widgets.HBox(
            [self.older, self.newer, self.line, self.every, self.sheet, self.told, self.taking],
            layout=widgets.Layout(flex_flow="row wrap", align_items="center", display="none"),
        )
        self.bar.add_class("kit-bar")
        self.pictures_box = widgets.VBox([], layout=widgets.Layout(width="100%"))
        self.root = widgets.VBox([self.bar, self.pictures_box], layout=widgets.Layout(width="100%"))

    def update(self, samples: Samples, run_dir: Path | None = None) -> None:
        """Show the newest pictures, or the page that was turned to; others make room."""
        self._samples, self._run_dir = samples, run_dir
        self._draw()

    def _turn(self, pages: int) -> None:
        self._page = max(0, min(self._page + pages, pages_of(self._samples) - 1))
        self._draw()

    def _draw(self) -> None:
        pages = pages_of(self._samples)
        self._page = min(self._page, pages - 1)
        found = shown_rows(self._samples, page=self._page, every_prompt=self.every.value)
        for index, drawn in found.items():
            title, row = self._row(index)
            title.value = f"<div class='kit-prompt'>{escaped(drawn[-1].prompt)}</div>"
            row.children = [self._cell(sample) for sample in drawn]
        self.pictures_box.children = [part for index in found for part in self._rows[index]]
        self._close_all_but(found, {sample.path for drawn in found.values() for sample in drawn})
        self._show_bar(pages)

    def _show_bar(self, pages: int) -> None:
        rows = rows_of(self._samples)
        own = sum(not is_asked(drawn) for drawn in rows.values())
        hides = own > PROMPTS_SHOWN or len(rows) - own > PROMPTS_SHOWN
        self.bar.layout.display = None if rows else "none"
        for button in (self.older, self.newer):
            button.layout.display = None if pages > 1 else "none"
        self.older.disabled, self.newer.disabled = self._page >= pages - 1, self._page == 0
        count = sum(map(len, self._samples.values()))
        pictures = f"{count} sample picture" + ("s" if count != 1 else "")
        on = f", page {pages - self._page} of {pages}" if pages > 1 else ""
        self.line.value = f"<span class='kit-quiet'>{pictures}{on}</span>"
        self.every.description = f"All {len(rows)} prompts"
        self.every.layout.display = None if hides else "none"

    def _save_sheet(self) -> None:
        if self._run_dir is None:
            return
        try:
            file = save_sheet(self._samples, self._run_dir)
        except KitError as error:
            self.told.value = f"<span class='kit-problem'>{escaped(error)}</span>"
            return
        name = f"{self._run_dir.stem}-{file.name}"
        self.told.value = download(file, f"Download {name}", name=name)
        self.taking.children = buttons([str(file)])

    def _close_all_but(self, rows: Collection[int], paths: Collection[str]) -> None:
        """Close what is shown no more, boxes before what they hold.

        A front end that is opened again asks for every open widget at once, and shows none of them
        where one box holds a child that is closed.
        """
        for index in set(self._rows) - set(rows):
            title, row = self._rows.pop(index)
            row.close()
            title.close()
        for path in set(self._cells) - set(paths):
            self._cells.pop(path).close()
            self._thumbnails.pop(path, None)

    @property
    def pictures(self) -> dict[str, bytes]:
        """What is shown: JPEG bytes by the sample's path."""
        return dict(self._thumbnails)

    def _row(self, index: int) -> tuple[widgets.HTML, widgets.HBox]:
        if index not in self._rows:
            row = widgets.HBox([], layout=widgets.Layout(flex_flow="row wrap", width="100%"))
            row.add_class("kit-shots")
            self._rows[index] = block(), row
        return self._rows[index]

    def _cell(self, sample: Sampled) -> widgets.HTML:
        if sample.path not in self._cells:
            html, data = picture_html(sample, locate(sample.path, self._run_dir))
            cell = widgets.HTML(html, layout=self._cell_layout)
            cell.add_class("kit-shot")
            self._cells[sample.path] = cell
            if data is not None:
                self._thumbnails[sample.path] = data
        return self._cells[sample.path]


def _button(text: str, hint: str) -> widgets.Button:
    return widgets.Button(description=text, tooltip=hint, layout=widgets.Layout(width="auto"))
