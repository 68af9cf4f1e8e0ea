"""Fingerprint of a run, by which one without a readable `made_of.json` is known again.

`kit.runs.made_of` and `kit.runs.differences` replaced it: they can say what differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from kit.dataset.images import TrainImage
from kit.dataset.subsets import Subset
from kit.reading.paths import resolved
from kit.settings import Settings, declarations


def fingerprint(
    settings: Settings, images: tuple[TrainImage, ...], subsets: Sequence[Subset] = ()
) -> str:
    """What must be equal for such a run to go on: the settings that shape it, and the images.

    subsets: those of a dataset configuration; what they give counts, not where the file lies.

    The seed is left to the run's record, which knows the one that was drawn for a blank. Of an
    image its path, caption, repeats and `is_reg` count; the picture itself is told by its file's
    size and time of change.
    """
    asked = {n: v for n, v in settings.flat().items() if declarations()[n].shapes_run}
    pictures = [
        (
            str(resolved(i.path)),
            i.caption,
            i.repeats,
            i.is_reg,
            i.path.stat().st_size,
            i.path.stat().st_mtime_ns,
            *([i.subset] if subsets else []),
        )
        for i in images
    ]
    ways = [
        [subset.dataset, {name: subset.settings.flat()[name] for name in sorted(subset.given)}]
        for subset in subsets
    ]
    text = json.dumps([asked, pictures, *ways], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
