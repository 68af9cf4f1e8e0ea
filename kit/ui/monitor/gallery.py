"""Sample pictures: a row for each prompt, a column for each step, the base model's at the left."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as widgets
from PIL import Image

from kit.events import Sampled
from kit.ui.look import block, escaped

STEPS_SHOWN = 4  # the newest, besides step 0
PROMPTS_SHOWN = 8  # of the run's own, and as many of those that were typed while it trained
SIDE = 320  # longest side of a thumbnail, in pixels
TINY = 128  # a longest side up to which a picture is enlarged, pixel by pixel
CELL = 170  # widest a picture is shown, in pixels

Samples = Mapping[int, Mapping[int, Sampled]]  # by step, then by prompt


def shown_rows(samples: Samples) -> dict[int, list[Sampled]]:
    """By the prompt's place: the base model's picture if there is one, and the newest few.

    Each prompt has its own newest: what was asked for once stays while others are drawn anew.
    The run's first prompts are shown, and those that were asked for last.
    """
    rows: dict[int, list[Sampled]] = {}
    for step in sorted(samples):
        for index, sample in samples[step].items():
            rows.setdefault(index, []).append(sample)
    asked = [index for index, drawn in rows.items() if all(sample.wished for sample in drawn)]
    asked.sort(key=lambda index: (rows[index][-1].step, index))
    own = sorted(set(rows) - set(asked))
    shown = sorted([*own[:PROMPTS_SHOWN], *asked[-PROMPTS_SHOWN:]])
    return {index: _newest(rows[index]) for index in shown}


def _newest(drawn: Sequence[Sampled]) -> list[Sampled]:
    return [*(s for s in drawn if s.step == 0), *[s for s in drawn if s.step > 0][-STEPS_SHOWN:]]


def thumbnail(path: Path) -> bytes | None:
    """A small JPEG of the picture, or None where it cannot be read (any more)."""
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
    except (OSError, ValueError):
        return None
    longest = max(small.size)
    if longest <= TINY:  # the browser would blur it
        factor = SIDE // longest
        small = small.resize(
            (small.width * factor, small.height * factor), Image.Resampling.NEAREST
        )
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def locate(path: str, run_dir: Path | None) -> Path:
    """Where a sample lies now: its run may have moved, e.g. with a Drive mounted elsewhere."""
    told = Path(path)
    if run_dir is None or told.exists():
        return told
    return run_dir.parent / "sample" / told.name


class Gallery:
    """The pictures as widgets; a picture once shown is not sent again."""

    def __init__(self) -> None:
        self.root = widgets.VBox([], layout=widgets.Layout(width="100%"))
        self._cells: dict[str, widgets.VBox] = {}
        self._rows: dict[int, tuple[widgets.HTML, widgets.GridBox]] = {}

    def update(self, samples: Samples, run_dir: Path | None = None) -> None:
        """Show the newest pictures; old ones make room."""
        found = shown_rows(samples)
        columns = max(map(len, found.values()), default=1)
        for index, drawn in found.items():
            title, grid = self._row(index)
            title.value = f"<div class='kit-prompt'>{escaped(drawn[-1].prompt)}</div>"
            grid.layout.grid_template_columns = f"repeat({columns}, minmax(0, {CELL}px))"
            grid.children = [self._cell(sample, run_dir) for sample in drawn]
        self.root.children = [part for index in found for part in self._rows[index]]
        self._close_all_but(found, {sample.path for drawn in found.values() for sample in drawn})

    def _close_all_but(self, rows: Collection[int], paths: Collection[str]) -> None:
        """Close what is shown no more, boxes before what they hold.

        A front end that is opened again asks for every open widget at once, and shows none of them
        where one box holds a child that is closed.
        """
        for index in set(self._rows) - set(rows):
            for part in self._rows.pop(index):
                part.close()
        for path in set(self._cells) - set(paths):
            _close(self._cells.pop(path))

    @property
    def pictures(self) -> dict[str, bytes]:
        """What is shown: JPEG bytes by the sample's path."""
        return {
            path: bytes(cell.children[0].value)
            for path, cell in self._cells.items()
            if isinstance(cell.children[0], widgets.Image)
        }

    def _row(self, index: int) -> tuple[widgets.HTML, widgets.GridBox]:
        if index not in self._rows:
            layout = widgets.Layout(grid_gap="4px 8px", width="100%")
            self._rows[index] = block(), widgets.GridBox([], layout=layout)
        return self._rows[index]

    def _cell(self, sample: Sampled, run_dir: Path | None) -> widgets.VBox:
        if sample.path not in self._cells:
            data = thumbnail(locate(sample.path, run_dir))
            picture = (
                widgets.Image(value=data, format="jpeg", layout=widgets.Layout(width="100%"))
                if data
                else block("<div class='kit-quiet'>not found</div>")
            )
            caption = block(f"<div class='kit-quiet'>{_step_words(sample.step)}</div>")
            self._cells[sample.path] = widgets.VBox([picture, caption])
        return self._cells[sample.path]


@dataclass(frozen=True)
class Results:
    """What a run leaves behind; as a cell's last line it is HTML and stays in the notebook."""

    path: str
    samples: Samples
    run_dir: Path | None = None

    def __repr__(self) -> str:
        return self.path or "no LoRA file yet"

    def _repr_html_(self) -> str:
        found = shown_rows(self.samples).values()
        columns = max(map(len, found), default=1)
        rows = "".join(self._row(drawn, columns) for drawn in found)
        size = _megabytes(Path(self.path)) if self.path else ""
        return (
            f"<div style='font-size:13px'><b>{escaped(repr(self))}</b> {size}</div>"
            f"<table style='border-collapse:collapse;font-size:12px;text-align:left'>{rows}</table>"
        )

    def _row(self, drawn: Sequence[Sampled], columns: int) -> str:
        cells = "".join(map(self._cell, drawn))
        prompt = escaped(drawn[-1].prompt)
        title = f"<td colspan='{columns}' style='text-align:left'>{prompt}</td>"
        return f"<tr>{title}</tr><tr>{cells}</tr>"

    def _cell(self, sample: Sampled) -> str:
        data = thumbnail(locate(sample.path, self.run_dir))
        if data is None:
            return "<td></td>"
        words = _step_words(sample.step)
        source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
        alt = escaped(f"{sample.prompt}, {words}")
        return (
            f"<td style='text-align:left;vertical-align:top'>"
            f"<img src='{source}' alt='{alt}' style='max-width:{CELL}px'><br>{words}</td>"
        )


def _step_words(step: int) -> str:
    return f"step {step}" if step else "before training"


def _megabytes(path: Path) -> str:
    try:
        return f"({path.stat().st_size / 1e6:.1f} MB)"
    except OSError:
        return "(no longer there)"


def _close(box: widgets.Box) -> None:
    box.close()
    for child in box.children:
        child.close()
