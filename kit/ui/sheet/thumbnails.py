"""Thumbnails in which what a bucket cuts away is dark: made in a thread, kept, sent to the page."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from kit.dataset.buckets import BucketFit
from kit.dataset.pixels import open_upright
from kit.errors import DatasetError
from kit.ui.sheet.background import in_thread

SIDE = 256  # longest side in pixels: some 10 kB
DIM = 0.35  # of the brightness where the picture is cut away
MOST = 600  # thumbnails that are kept: some 8 MB
Wanted: TypeAlias = tuple[Path, BucketFit]
Key: TypeAlias = tuple[Path, int, BucketFit]
Take: TypeAlias = Callable[[bytes | str], None]


class Thumbnails:
    """Makes what is wanted now, in its order; what was wanted before and is not made is forgotten.

    Who wants one gives a function that takes the JPEG, or in words why there is none. It is called
    in the thread, and no more once something else is wanted.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, bytes | str] = OrderedDict()
        self._lock = threading.RLock()
        self._waiting: list[tuple[Take | None, Wanted]] = []
        self._thread: threading.Thread | None = None
        self._asked = 0

    def want(self, wanted: Sequence[tuple[Take, Wanted]], ahead: Sequence[Wanted] = ()) -> None:
        """Make these; those ahead are only made and kept, after the others."""
        with self._lock:
            self._asked += 1
            self._waiting = [*wanted, *((None, each) for each in ahead)]
            if self._waiting and self._thread is None:
                self._thread = in_thread(self._work, "kit-thumbnails")

    def kept(self, wanted: Wanted) -> bytes | str | None:
        """What is at hand at once."""
        with self._lock:
            return self._kept.get(thumbnail_key(wanted))

    def finish(self) -> None:
        """Wait until everything that is wanted is made."""
        if (thread := self._thread) is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                take, wanted = self._waiting.pop(0)
                asked, made = self._asked, self.kept(wanted)
            made = _made(wanted) if made is None else made
            with self._lock:
                self._keep(thumbnail_key(wanted), made)
                if take is not None and asked == self._asked:
                    take(made)

    def _keep(self, key: Key, made: bytes | str) -> None:
        self._kept[key] = made
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)


def thumbnail_key(wanted: Wanted) -> Key:
    """Path, time and cut: a picture that was replaced is another one."""
    path, place = wanted
    try:
        return path, path.stat().st_mtime_ns, place
    except OSError:
        return path, 0, place


def _made(wanted: Wanted) -> bytes | str:
    path, place = wanted
    try:
        return cut_thumbnail(open_upright(path, about=SIDE), place)
    except DatasetError as error:
        return error.found


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
