"""A sample picture on the page: a thumbnail that a click, Enter or Space enlarges, by HTML alone.

The large one is the file itself where the page can ask the server for it, and is then fetched only
when it is looked at; elsewhere a JPEG of moderate size comes along.
"""

from __future__ import annotations

import base64
import io
import math
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from kit.events import Sampled
from kit.ui.look import escaped
from kit.ui.monitor.downloads import address_of, path_to_copy

SIDE = 320  # longest side of a thumbnail, in pixels
LARGE = 640  # longest side of an enlarged picture that comes along
TINY = 128  # a longest side up to which a picture is enlarged, pixel by pixel

Samples = Mapping[int, Mapping[int, Sampled]]  # by step, then by prompt


def rows_of(samples: Samples) -> dict[int, list[Sampled]]:
    """By the prompt's place: all that was drawn of it, the first step first."""
    rows: dict[int, list[Sampled]] = {}
    for step in sorted(samples):
        for index, sample in samples[step].items():
            rows.setdefault(index, []).append(sample)
    return dict(sorted(rows.items()))


def is_asked(drawn: Iterable[Sampled]) -> bool:
    """The prompt is none of the run's own: it was typed while the run was at work."""
    return all(sample.wished for sample in drawn)


def locate(path: str, run_dir: Path | None) -> Path:
    """Where a sample lies now: its run may have moved, e.g. with a Drive mounted elsewhere."""
    told = Path(path)
    if run_dir is None or told.exists():
        return told
    return run_dir.parent / "sample" / told.name


def opened(path: Path) -> Image.Image | None:
    """The picture, or None where it cannot be read (any more)."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError):
        return None


def fitted(picture: Image.Image, side: int) -> Image.Image:
    """At most `side` pixels long; a tiny one enlarged, which the browser would blur."""
    longest = max(picture.size)
    if longest <= TINY and longest < side:
        factor = max(1, side // longest)
        size = picture.width * factor, picture.height * factor
        return picture.resize(size, Image.Resampling.NEAREST)
    small = picture.copy()
    small.thumbnail((side, side))
    return small


def thumbnail(path: Path, side: int = SIDE) -> bytes | None:
    """A small JPEG of the picture, or None where it cannot be read (any more)."""
    picture = opened(path)
    return _jpeg(fitted(picture, side)) if picture else None


def picture_html(
    sample: Sampled, path: Path, *, side: int = SIDE, large: int = LARGE
) -> tuple[str, bytes | None]:
    """The sample as HTML, and its thumbnail's JPEG; what is gone is said.

    side, large: longest sides of what is sent, in pixels.
    """
    words, picture = step_words(sample.step), opened(path)
    if picture is None:
        return f"<div class='kit-quiet'>not found<br>{words}</div>", None
    small = fitted(picture, side)
    data, mark = _jpeg(small), f"kit-{uuid.uuid4().hex[:12]}"
    alt = escaped(f"{sample.prompt}, {words}")
    address = address_of(path)
    source = escaped(address) if address else _source(_jpeg(fitted(picture, large)))
    tiny = " is-tiny" if max(picture.size) <= TINY else ""
    take = (
        f"<a class='kit-button' href='{source}?download=1' download='{escaped(path.name)}' "
        "target='_blank'>Download</a>"
        if address
        else path_to_copy(path)
    )
    shape = f"width='{small.width}' height='{small.height}'"
    html = (
        f"<div><button type='button' class='kit-open' popovertarget='{mark}' "
        f"aria-label='Enlarge: {alt}'><img src='{_source(data)}' {shape} alt='{alt}'></button>"
        f"<div class='kit-quiet'>{words}</div>"
        f"<div id='{mark}' popover class='kit-large{tiny}' role='dialog' aria-label='{alt}'>"
        f"<img src='{source}' alt='{alt}' loading='lazy'>"
        f"<div>{escaped(sample.prompt)}</div>"
        f"<p>{words}, seed {sample.seed}, {picture.width} x {picture.height}</p>{take} "
        f"<button type='button' class='kit-button' popovertarget='{mark}' "
        "popovertargetaction='hide'>Close</button></div></div>"
    )
    return html, data


def sides_for(count: int) -> tuple[int, int]:
    """Sides of thumbnails and of enlarged pictures, so that a page of many stays small.

    About 2 MB of thumbnails at most, however many there are.
    """
    small = min(SIDE, max(64, round(SIDE * math.sqrt(80 / max(1, count)))))
    return small, max(256, min(LARGE, round(LARGE * math.sqrt(40 / max(1, count)))))


def step_words(step: int) -> str:
    """A column's name."""
    return f"step {step}" if step else "before training"


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _source(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
