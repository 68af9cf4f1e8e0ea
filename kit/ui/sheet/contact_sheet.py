"""The data set before anything is spent: each image with its cut, its bucket and its captions.

Drawn from the plan, so it is what the run will train on. A page at a time, and only when asked.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterator
from textwrap import shorten

import ipywidgets as widgets
from PIL import Image

from kit.dataset.buckets import BucketFit
from kit.dataset.captions import effective_captions
from kit.dataset.images import TrainImage
from kit.dataset.pixels import open_upright
from kit.dataset.unread import Unread, unread
from kit.errors import DatasetError
from kit.planning import Plan
from kit.ui.look import block, escaped

PER_PAGE = 12
SIDE = 200  # longest side of a thumbnail, in pixels
SHOWN = 120  # letters of what is not read of a caption
BEFORE_MARK = re.compile(r" (?=[,.;:!?)])")  # a tokenizer's words stand apart
DIM = 0.35  # of the brightness where the picture is cut away


class ContactSheet:
    """A folded sheet that the form keeps up to date with its plan."""

    def __init__(self) -> None:
        layout = widgets.Layout(width="auto")
        self.open_button = widgets.Button(
            description="Look at the images",
            tooltip="Images as they will be trained",
            layout=layout,
        )
        self.back_button = widgets.Button(description="Back", layout=layout)
        self.next_button = widgets.Button(description="Next", layout=layout)
        self.summary = block(css="kit-quiet")
        self.sheet = block(css="kit-sheet")
        self._turning = widgets.HBox([self.back_button, self.next_button])
        self._plan: Plan | None = None
        self._page = 0
        self._is_open = False
        self.open_button.on_click(lambda _: self._toggle())
        self.back_button.on_click(lambda _: self._turn(-1))
        self.next_button.on_click(lambda _: self._turn(1))
        self.root = widgets.VBox(
            [widgets.HBox([self.open_button, self._turning]), self.summary, self.sheet],
            layout=widgets.Layout(width="100%"),
        )
        self._draw()

    def update(self, plan: Plan | None) -> None:
        """Take a new plan, or none where the form's settings give none."""
        self._plan = plan
        self._page = min(self._page, self._pages - 1)
        self._draw()

    @property
    def _pages(self) -> int:
        return max(1, math.ceil(len(self._plan.images) / PER_PAGE)) if self._plan else 1

    def _toggle(self) -> None:
        self._is_open = not self._is_open
        self._draw()

    def _turn(self, pages: int) -> None:
        self._page = (self._page + pages) % self._pages
        self._draw()

    def _draw(self) -> None:
        shown = self._is_open and self._plan is not None
        self.open_button.description = "Hide the images" if shown else "Look at the images"
        self.open_button.disabled = self._plan is None
        self._turning.layout.display = None if shown and self._pages > 1 else "none"
        if not shown or self._plan is None:
            self.summary.value = self.sheet.value = ""
            return
        first = self._page * PER_PAGE
        numbers = range(first, min(first + PER_PAGE, len(self._plan.images)))
        self.summary.value = f"<div>{escaped(_summary(self._plan, numbers))}</div>"
        cards = "".join(_card(self._plan, number) for number in numbers)
        self.sheet.value = f"<div class='kit-cards'>{cards}</div>"


def _summary(plan: Plan, shown: range) -> str:
    captions = sum(bool(image.caption) for image in plan.images)
    return (
        f"Images {shown.start + 1} to {shown.stop} of {len(plan.images)}; {captions} have words. "
        "What is cut away is dark. Beneath each picture: its caption in the first three epochs."
    )


def _card(plan: Plan, number: int) -> str:
    image, place = plan.images[number], plan.fits[number]
    width, height = place.bucket
    use = "regularisation" if image.is_reg else f"{image.repeats} times an epoch"
    return (
        f"<div class='kit-card'>{_picture(image, place)}"
        f"<div><b>{escaped(image.path.name)}</b></div>"
        f"<div class='kit-quiet'>{image.width} x {image.height} to {width} x {height}, {use}</div>"
        f"<ol class='kit-quiet'>{_captions(plan, number)}</ol>{_lost(plan, number)}</div>"
    )


def _lost(plan: Plan, number: int) -> str:
    """What of the caption no text encoder reads."""
    found = unread(plan.images[number].caption, plan.settings_of(number))
    return "".join(f"<div class='kit-problem'>{escaped(text)}</div>" for text in _losses(found))


def _losses(found: Unread) -> Iterator[str]:
    if found.is_cut:
        words = shorten(BEFORE_MARK.sub("", found.words).strip(" ,.;"), SHOWN, placeholder=" ...")
        yield f"{found.tokens} tokens, {found.room} are read; not read: {words}"
    if found.lines:
        lines = "1 more line is" if found.lines == 1 else f"{found.lines} more lines are"
        yield f"{lines} not read"


def _captions(plan: Plan, number: int) -> str:
    settings = plan.settings_of(number).captions
    texts = effective_captions(plan.images[number].caption, settings, seed=plan.seed, image=number)
    if len(set(texts)) == 1:
        texts = texts[:1]  # every epoch reads the same
    return "".join(f"<li>{escaped(text) or '<i>no words</i>'}</li>" for text in texts)


def _picture(image: TrainImage, place: BucketFit) -> str:
    try:
        data = cut_thumbnail(open_upright(image.path), place)
    except DatasetError as error:
        return f"<div class='kit-problem'>{escaped(error.found)}</div>"
    text = base64.b64encode(data).decode()
    return f'<img alt="{escaped(image.path.name)}" src="data:image/jpeg;base64,{text}">'


def cut_thumbnail(picture: Image.Image, place: BucketFit) -> bytes:
    """A small JPEG of the whole picture in which what the bucket cuts away is dark."""
    (width, height), (kept_width, kept_height) = place.resized, place.bucket
    share = min(1.0, SIDE / max(picture.size))
    size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
    small = picture.resize(size, Image.Resampling.BILINEAR)
    across = round((width - kept_width) / 2 / width * size[0])
    down = round((height - kept_height) / 2 / height * size[1])
    dark = small.point(lambda level: int(level * DIM))
    box = (across, down, size[0] - across, size[1] - down)
    dark.paste(small.crop(box), box[:2])
    buffer = io.BytesIO()
    dark.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
