"""How far a download from the Hub has come, read from what lies in its cache.

The client's own bars differ from version to version, and are drawn in whatever cell runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeAlias

Progress: TypeAlias = tuple[int, int]  # bytes that are here, and in all; 0: not known
PERIOD = 0.5  # seconds between two looks


def watched(
    fetch: Callable[[], str], repo: str, listing: Callable[[], list[Any]]
) -> Generator[Progress, None, Path]:
    """What fetch() returns, telling meanwhile how many bytes have come.

    listing: the client's dry run, of which each file tells its size and whether it will be
    fetched. Who gives up waiting leaves the download behind: the Hub's client cannot be stopped,
    and what it fetches is there the next time.

    Raises: what fetch() raises.
    """
    missing = _missing(listing)
    blobs = _blobs(repo)
    before = _size(blobs)
    job = _Job(fetch)
    while not job.over.wait(PERIOD):
        if missing:
            yield min(missing, max(0, _size(blobs) - before)), missing
    return job.result()


class _Job:
    """A call in a thread."""

    def __init__(self, call: Callable[[], str]) -> None:
        self.over = threading.Event()
        self._call, self._value = call, ""
        self._error: BaseException | None = None
        threading.Thread(target=self._work, name="kit-hub", daemon=True).start()

    def result(self) -> Path:
        if self._error is not None:
            raise self._error
        return Path(self._value)

    def _work(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:  # raised where it is waited for
            self._error = error
        finally:
            self.over.set()


def _missing(listing: Callable[[], list[Any]]) -> int:
    try:
        return sum(file.file_size for file in listing() if file.will_download)
    except OSError:  # the download itself will say it
        return 0


def _blobs(repo: str) -> Path:
    from huggingface_hub import constants, file_download  # late: it takes a second to import

    folder = file_download.repo_folder_name(repo_id=repo, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder / "blobs"


def _size(folder: Path) -> int:
    """Bytes of the disk that its files take; files may vanish meanwhile."""
    total = 0
    for file in folder.glob("*"):
        try:
            stat = file.stat()
        except OSError:
            continue
        total += min(stat.st_size, getattr(stat, "st_blocks", stat.st_size) * 512)
    return total
