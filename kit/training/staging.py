"""Images and a base model from slow storage, copied to the machine's own disk before training.

Google Drive answers each file in a tenth of a second or more; an epoch of a few hundred images
would wait longer than it trains. Copies are made once a session and are exact, so nothing that is
trained or cached depends on where a file was read.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from kit.basemodel import ModelFile
from kit.dataset.images import TrainImage
from kit.events import Cached, Event, Noticed
from kit.hosts import host

AT_ONCE = 8  # each waits for the network most of the time
SPARE = 2_000_000_000  # bytes that must stay free on the machine's disk


def staged_images(
    images: tuple[TrainImage, ...],
) -> Generator[Event, None, tuple[TrainImage, ...]]:
    """The same images, read from the machine's own disk."""
    here = host()
    slow = [image.path for image in images if here.is_slow(image.path)]
    folder = here.scratch / "images" if here.scratch else None
    if folder is None or not slow or not _fits(slow, folder):
        return images
    targets: dict[Path, Path] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for source, target in zip(slow, pool.map(lambda p: _copied(p, folder), slow), strict=True):
            targets[source] = target
            yield Cached("copies of images", len(targets), len(slow))
    if failed := sum(source == target for source, target in targets.items()):
        yield Noticed(f"{failed} images could not be copied to {folder}; reading them takes longer")
    return tuple(replace(image, path=targets.get(image.path, image.path)) for image in images)


def staged_model(file: ModelFile) -> Generator[Event, None, ModelFile]:
    """The same base model, read from the machine's own disk; a folder is read where it lies."""
    here = host()
    folder = here.scratch / "models" if here.scratch else None
    is_slow = here.is_slow(file.path) and not file.is_folder
    if folder is None or not is_slow or not _fits([file.path], folder):
        return file
    yield Cached("a copy of the base model", 0, 1)
    target = _copied(file.path, folder)
    yield Cached("a copy of the base model", 1, 1)
    return replace(file, path=target)


def _copied(source: Path, folder: Path) -> Path:
    """The copy of a file, made if it is missing or older; the file itself where that fails."""
    place = hashlib.sha256(str(source.parent).encode()).hexdigest()[:12]
    target = folder / place / source.name
    try:
        there, here = source.stat(), target.stat() if target.exists() else None
        if here and (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        shutil.copy2(source, part)
        part.replace(target)
    except OSError:
        return source
    return target


def _fits(files: list[Path], folder: Path) -> bool:
    """There is room for copies of all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free - sum(f.stat().st_size for f in files) > SPARE
