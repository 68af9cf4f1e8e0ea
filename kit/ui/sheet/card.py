"""One picture of the contact sheet: its cut, its findings and its caption, which can be edited."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence

import ipywidgets as widgets

from kit.dataset.buckets import BucketFit
from kit.dataset.caption_editing import Caption
from kit.dataset.images import TrainImage
from kit.dataset.picture_findings import CUT, cut_share
from kit.ui.form.layouts import Shared
from kit.ui.look import escaped

FULL = {"width": "100%", "min_width": "0"}
WAITING = "<div class='kit-thumb'><span class='kit-quiet'>...</span></div>"
MARKUP = re.compile(r"[<>&]")


class Card:
    """The widgets of one place on the page; which picture stands there changes with the page."""

    def __init__(self, save: Callable[[Card], None], shared: Shared) -> None:
        self.number = -1  # of the picture that it shows
        self.picture = shared.make(widgets.HTML, WAITING, layout=FULL)
        self.facts = shared.make(widgets.HTML, layout=FULL)
        self.text = shared.make(
            widgets.Textarea,
            rows=3,
            continuous_update=False,
            description="Caption",
            layout=FULL,
            css=("kit-named",),
        )
        self.line = shared.make(widgets.HTML, layout=FULL)
        parts = [self.picture, self.facts, self.text, self.line]
        self.root = shared.make(widgets.VBox, parts, layout=FULL, css=("kit-card",))
        self._is_filling = False
        self._drawn: object = None
        self.text.observe(lambda _: None if self._is_filling else save(self), names="value")

    def show(
        self,
        number: int,
        name: str,
        image: TrainImage,
        place: BucketFit,
        caption: Caption,
        findings: Sequence[str],
        trained_as: Sequence[str],
    ) -> None:
        """Show this picture; its thumbnail comes when it is made. name: as no other is called."""
        if number != self.number:
            self.number, self.line.value = number, ""
        self.facts.value = _facts(name, image, place, findings, trained_as)
        # Where a description is HTML (ipywidgets 7), a name must not be read as such.
        self.text.description = f"Caption of {MARKUP.sub(' ', name)}"
        unwritten = f"{caption.text} (no caption file)" if caption.text else "no caption file"
        self.text.placeholder = "" if caption.is_written else unwritten
        self.text.disabled = bool(caption.locked)
        self._fill(caption.text if caption.is_written else "")
        if caption.locked:
            self.line.value = f"<div class='kit-quiet'>{escaped(caption.locked)}</div>"

    def keep(self, typed: str, why: str) -> None:
        """Show what was typed and could not be saved."""
        self._fill(typed)
        self.say(why, is_bad=True)

    def _fill(self, text: str) -> None:
        self._is_filling = True
        try:
            self.text.value = text
        finally:
            self._is_filling = False

    def is_drawn(self, thumbnail: object) -> bool:
        """Whether this thumbnail is shown; if not, the one before is taken away."""
        if thumbnail == self._drawn:
            return True
        self._drawn, self.picture.value = None, WAITING
        return False

    def draw(self, name: str, thumbnail: object, made: bytes | str) -> None:
        """Show a thumbnail, or in words why there is none."""
        if isinstance(made, str):
            self.picture.value = f"<div class='kit-problem'>{escaped(made)}</div>"
        else:
            data = base64.b64encode(made).decode()
            image = f'<img alt="{escaped(name)}" src="data:image/jpeg;base64,{data}">'
            self.picture.value = f"<div class='kit-thumb'>{image}</div>"
        self._drawn = thumbnail

    def say(self, text: str, *, is_bad: bool = False) -> None:
        """A word about the caption, beneath it."""
        css = "problem" if is_bad else "quiet"
        self.line.value = f"<div class='kit-{css}'>{escaped(text)}</div>" if text else ""


def _facts(
    name: str,
    image: TrainImage,
    place: BucketFit,
    findings: Sequence[str],
    trained_as: Sequence[str],
) -> str:
    width, height = place.bucket
    use = "regularisation" if image.is_reg else f"{image.repeats} times an epoch"
    share = cut_share(place)
    cut = f", {share:.0%} cut away" if 0.01 <= share < CUT else ""
    told = "".join(f"<div class='kit-finding'>{escaped(text)}</div>" for text in findings)
    texts = "".join(f"<li>{escaped(text) or '<i>no words</i>'}</li>" for text in trained_as)
    epochs = f"<div class='kit-quiet'>In the first epochs:<ol>{texts}</ol></div>" if texts else ""
    return (
        f"<div class='kit-name' title='{escaped(name)}'>{escaped(name)}</div>"
        f"<div class='kit-quiet'>{image.width} x {image.height} to {width} x {height}{cut}, {use}"
        f"</div>{told}{epochs}"
    )
