"""A shelf: cached things in memory as far as they fit; the others lie on the disk until their use.

Twenty thousand pictures are twenty gigabytes of latents and embeddings. What does not fit is read
anew at each use, ahead in threads, so that a step does not wait for the disk. The first that fit
stay: an epoch asks for everything once, so that keeping the latest instead would find nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

from torch import Tensor

from kit.caching.disk import DiskCache
from kit.caching.prefetch import Prefetcher
from kit.errors import DatasetError

MOST = 256 * 2**20  # bytes of a shelf that stay in memory though they also lie on the disk
READERS = 2  # threads; a network drive answers several at once
BATCHES_AHEAD = 4

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Shelf(Mapping[Key, Value]):
    """Values by key; `read` makes the same value as was put, from the disk."""

    def __init__(
        self, read: Callable[[Key], Value], size: Callable[[Value], int], *, most: int | None = None
    ) -> None:
        """size: bytes of a value; most: how many stay in memory that the disk holds too."""
        self.held, self.most = 0, MOST if most is None else most
        self._size = size
        self._kept: dict[Key, Value | None] = {}  # None: on the disk alone
        self._reading = Prefetcher(read, workers=READERS)
        self._is_whole = True  # all of it is in memory

    def put(self, key: Key, value: Value, *, on_disk: bool) -> None:
        """Keep it; where the disk does not hold it, whatever its size."""
        size = self._size(value)
        if on_disk and self.held + size > self.most:
            self._kept[key], self._is_whole = None, False
            return
        self._kept[key] = value
        self.held += size

    def __getitem__(self, key: Key) -> Value:
        """The value; raises KeyError where it was never put, and what reading raises."""
        value = self._kept[key]
        return self._reading.take(key) if value is None else value

    def __iter__(self) -> Iterator[Key]:
        """The keys, in the order in which they were put."""
        return iter(self._kept)

    def __len__(self) -> int:
        """How many there are, wherever they lie."""
        return len(self._kept)

    @property
    def batches_ahead(self) -> int:
        """How many batches it is good to prefetch."""
        return 0 if self._is_whole else BATCHES_AHEAD

    def prefetch(self, keys: Iterable[Key]) -> None:
        """These will be asked for soon, in this order."""
        self._reading.prefetch(key for key in keys if self._kept[key] is None)

    def close(self) -> None:
        """End the threads."""
        self._reading.close()


def reread(disk: DiskCache, key: str, *names: str) -> dict[str, Tensor]:
    """What the disk held when the cache was made, in memory of its own.

    Raises: DatasetError where it does not any more.
    """
    tensors = disk.get(key, *names)
    if tensors is None:
        raise DatasetError(
            f"The cache file {disk.folder / key}.safetensors is gone or damaged.",
            "It was there when this training began. The state of the last whole step is kept.",
            "Start the training again: what is missing is made anew, and the run goes on.",
        )
    return unmapped(tensors)


def unmapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies, so that a file need not stay mapped: a process may map some 65,000."""
    return {name: tensor.clone() for name, tensor in tensors.items()}
