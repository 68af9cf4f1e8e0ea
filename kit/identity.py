"""Which runs are the same: what must be equal for an unfinished one to go on."""

from __future__ import annotations

import hashlib
import json

from kit.dataset.images import TrainImage
from kit.settings import Settings, declarations


def fingerprint(settings: Settings, images: tuple[TrainImage, ...]) -> str:
    """What must be equal for a run to go on: the settings that shape it, and the images.

    The seed is left to the run's record, which knows the one that was drawn for a blank.
    Captions and picture files are told by size and time; a changed one begins a new run.
    """
    asked = {n: v for n, v in settings.flat().items() if declarations()[n].shapes_run}
    pictures = [
        (
            str(i.path.resolve()),
            i.caption,
            i.repeats,
            i.is_reg,
            i.path.stat().st_size,
            i.path.stat().st_mtime_ns,
        )
        for i in images
    ]
    text = json.dumps([asked, pictures], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
