"""The best files' pictures beside the bare base's: one picture, a row for each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten

from PIL import Image, ImageDraw, ImageFont

from kit.comparing.drawing import Drawn, Pictures
from kit.errors import OutputError
from kit.runs.atomic_write import write_atomically

NAME = "choice.jpg"
EACH = 3  # pictures of the subject, and of other prompts
SIDE, GAP, HEAD, SIZE = 192, 6, 40, 13
PAPER, INK = "white", "#222222"


def save_grid(folder: Path, asked: Drawn, drawn: Mapping[str, Pictures]) -> Path:
    """Write choice.jpg; drawn: by file, in the order of the rows, "" the bare base model.

    Raises: OutputError where the folder cannot be written.
    """
    file, picture = folder / NAME, grid(asked, drawn)
    try:
        write_atomically(file, lambda part: picture.save(part, "JPEG", quality=90))
    except OSError as error:
        raise OutputError(
            f"{file} cannot be written: {error.strerror or error}.",
            do="Free some space, or give yourself the right to write there.",
        ) from error
    return file


def grid(asked: Drawn, drawn: Mapping[str, Pictures]) -> Image.Image:
    """The same prompts and seeds in every row, which begins with the file's name."""
    prompts = [*asked.subject[:EACH], *asked.others[:EACH]]
    font = ImageFont.load_default(SIZE)
    label = max(160, *(int(font.getlength(name)) + 2 * GAP for name in drawn))
    size = label + len(prompts) * (SIDE + GAP), HEAD + len(drawn) * (SIDE + GAP)
    whole = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(whole)
    for column, prompt in enumerate(prompts):
        place = label + column * (SIDE + GAP), 3
        pen.multiline_text(place, _in_two(prompt.text), INK, font, spacing=2)
    for row, (name, pictures) in enumerate(drawn.items()):
        top = HEAD + row * (SIDE + GAP)
        pen.text((GAP, top + SIDE // 2 - SIZE), name or "the bare base", INK, font)
        cells = [*pictures.subject[:EACH], *pictures.others[:EACH]]
        for column, picture in enumerate(cells):
            whole.paste(_cell(picture), (label + column * (SIDE + GAP), top))
    return whole


def _cell(picture: Image.Image) -> Image.Image:
    """Whole, in a square; small ones keep their edges."""
    share = SIDE / max(picture.size)
    size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
    how = Image.Resampling.NEAREST if share > 1 else Image.Resampling.LANCZOS
    cell = Image.new("RGB", (SIDE, SIDE), PAPER)
    cell.paste(picture.resize(size, how), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return cell


def _in_two(text: str) -> str:
    """At most two lines of a column's width."""
    words = shorten(text, 52, placeholder=" ...")
    cut = words.rfind(" ", 0, 27) if len(words) > 27 else len(words)
    return f"{words[:cut]}\n{words[cut:].strip()}"
