"""Prompts x steps as one labelled picture, to keep and to show around."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable
from pathlib import Path
from textwrap import shorten, wrap

from PIL import Image, ImageDraw, ImageFont

from kit.errors import OutputError
from kit.events import Sampled
from kit.runs.atomic_write import write_atomically
from kit.ui.monitor.pictures import Samples, fitted, locate, opened, rows_of, step_words

NAME = "samples.jpg"
MOST_PIXELS = 16_000_000  # of the whole picture; many rounds get smaller cells
SIDES = 48, 384  # pixels of a cell, at least and at most
GAP, HEAD, SIZE = 8, 28, 15
LETTERS = 2_000  # of a prompt
PAPER, INK = "white", "#222222"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def save_sheet(samples: Samples, run_dir: Path) -> Path:
    """Write samples.jpg into the run's folder: a row for each prompt, a column for each step.

    Raises: OutputError where no picture is there, or the folder cannot be written.
    """
    picture = sheet(samples, run_dir)
    if picture is None:
        raise OutputError(
            "There is no sample picture that can be read.",
            "Pictures are drawn where Sample prompts is filled in, or with Sample now.",
            "Wait for the first ones, or look whether the folder 'sample' was moved.",
        )
    file = run_dir / NAME
    try:
        write_atomically(file, lambda part: picture.save(part, "JPEG", quality=90))
    except OSError as error:
        raise OutputError(
            f"{file} cannot be written: {error.strerror or error}.",
            do="Free some space, or copy the pictures from the folder 'sample'.",
        ) from error
    return file


def sheet(samples: Samples, run_dir: Path | None = None) -> Image.Image | None:
    """The picture; None where no sample can be read."""
    rows = rows_of(samples)
    steps = sorted({sample.step for drawn in rows.values() for sample in drawn})
    side = _side(len(rows) * len(steps))
    cells = {
        (index, sample.step): fitted(picture, side)
        for index, drawn in rows.items()
        for sample in drawn
        if (picture := opened(locate(sample.path, run_dir))) is not None
    }
    if not cells:
        return None
    heights = [
        max((c.height for (i, _), c in cells.items() if i == row), default=0) for row in rows
    ]
    font, label = _font(), max(200, round(1.2 * side))
    texts = [_lines(drawn, font, label - 2 * GAP) for drawn in rows.values()]
    heights = [max(height, len(t) * (SIZE + 4)) for height, t in zip(heights, texts, strict=True)]
    size = label + len(steps) * (side + GAP), HEAD + sum(heights) + GAP * len(heights)
    whole = Image.new("RGB", size, PAPER)
    draw, top = ImageDraw.Draw(whole), HEAD
    for column, step in enumerate(steps):
        words = step_words(step) if side >= 110 else f"{step}"
        draw.text((label + column * (side + GAP), GAP), words, INK, font)
    for index, height, text in zip(rows, heights, texts, strict=True):
        draw.multiline_text((GAP, top), "\n".join(text), INK, font, spacing=4)
        for column, step in enumerate(steps):
            if (cell := cells.get((index, step))) is not None:
                whole.paste(cell, (label + column * (side + GAP), top))
        top += height + GAP
    return whole


def _side(cells: int) -> int:
    least, most = SIDES
    return max(least, min(most, math.isqrt(MOST_PIXELS // max(1, cells))))


def _lines(drawn: Iterable[Sampled], font: Font, width: int) -> list[str]:
    prompt = shorten([*drawn][-1].prompt, LETTERS, placeholder=" ...")
    letters = max(12, int(width / max(1.0, font.getlength("abcdefghij") / 10)))
    return wrap(prompt, letters) or [""]


def _font() -> Font:
    """DejaVu, which matplotlib brings along and which knows most alphabets; else Pillow's own."""
    found = importlib.util.find_spec("matplotlib")  # not imported: that takes a second
    if found is not None and found.origin:
        file = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        try:
            return ImageFont.truetype(str(file), SIZE)
        except OSError:
            pass
    return ImageFont.load_default(SIZE)
