"""Staging: what the page has sent, watched by a thread until a whole batch is there.

The page writes pieces into files `<batch>-<number>` of a folder, and at the end `<batch>.done`, a
list of names and sizes; `<batch>.cut` where the person cancelled. Names of the person's files are
never names in that folder. Only whole batches are handed on, and what is over is removed.
"""

from __future__ import annotations

import atexit
import base64
import binascii
import contextlib
import contextvars
import os
import queue
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from kit.dataset.incoming import Source
from kit.errors import DatasetError, KitError, Unreadable, without_secrets
from kit.reading.paths import resolved
from kit.reading.texts import read_json

SHELF = "lora-kit-uploads"  # no leading dot: Jupyter's servers refuse such folders
SECONDS = 0.4  # between two looks
PATIENCE = 300.0  # seconds without a new byte, after which an upload was cut off
# Jupyter's server looks at a file again after writing it: a list that is gone by then would be told
# to the page as an upload that failed. So it stays this long.
LINGER = 10.0
ABANDONED = 3600.0  # seconds after which another kernel's folder has no owner any more
PIECE = re.compile(r"[a-z0-9]{1,20}(-\d{1,5}|\.done|\.cut)")
ALIVE = "in-use.txt"
MARK = re.compile(r"u[0-9a-f]{8}")

Take = Callable[[Sequence[Source]], object]


class Staging:
    """One folder for pieces, its thread, and jobs that the thread does between its looks."""

    def __init__(self, folder: Path, take: Take, fail: Callable[[KitError], object]) -> None:
        """take(sources): a whole batch, in the thread; fail(error): why there is none."""
        self.folder = folder
        self._take, self._fail = take, fail
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._over: set[str] = set()  # batches whose late pieces are removed
        self._is_open, self._touched = True, 0.0
        _sweep(folder.parent)
        self.folder.mkdir(parents=True)
        # A copy of the context: without it ipykernel 7.0 ends a thread that changes a widget.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._watch,),
            name="kit-uploads",
            daemon=True,
        )
        self._thread.start()
        atexit.register(self.close)

    def do(self, job: Callable[[], object]) -> None:
        """Let the thread do something that takes long."""
        self._jobs.put(job)

    def write(self, name: str, at: int, text: str) -> int:
        """Write a piece, in base64, from this byte on (Colab's page has no files of its own).

        Returns how large the file is then; a piece may come twice.

        Raises: ValueError for a name that is none of ours, or a piece beyond the end; OSError.
        """
        if not PIECE.fullmatch(name):
            raise ValueError("no name of an upload")
        path = self.folder / name
        size = path.stat().st_size if path.exists() else 0
        if not 0 <= at <= size:
            raise ValueError("a piece is missing before this one")
        try:
            piece = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError("the piece is damaged") from error
        with path.open("r+b" if path.exists() else "xb") as file:
            file.seek(at)
            file.truncate()
            file.write(piece)
        return at + len(piece)

    def close(self) -> None:
        """End the thread and remove the folder; more than once does no harm."""
        self._is_open = False
        atexit.unregister(self.close)
        if threading.current_thread() is not self._thread:
            self._thread.join(2)
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # the last one takes the shelf away

    def look(self) -> None:
        """Hand on what is whole, and remove what is over."""
        self._show_life()
        files = {path.name: path for path in self.folder.iterdir()}
        for name, path in sorted(files.items()):
            batch = name.partition(".")[0].partition("-")[0]
            if name == ALIVE or not PIECE.fullmatch(name):
                continue
            if batch in self._over or name == f"{batch}.cut":
                self._forget(batch)
            elif name == f"{batch}.done":
                self._hand_on(batch, path)
            elif self._is_still(batch):
                self._forget(batch)
                self._fail(
                    DatasetError(
                        "The upload was cut off: nothing has come for five minutes.",
                        "Nothing was taken over.",
                        "Choose the pictures again.",
                    )
                )

    def _watch(self) -> None:
        while self._is_open:
            try:
                job = self._jobs.get(timeout=SECONDS)
            except queue.Empty:
                job = self.look
            try:
                job()
            except KitError as error:
                self._fail(error)
            except Exception as error:  # told where the person looks: the thread must not end
                if self._is_open:
                    self._fail(_mistake(error))
                    time.sleep(SECONDS)

    def _hand_on(self, batch: str, path: Path) -> None:
        try:
            sources = self._listed(batch, read_json(path))
        except (Unreadable, ValueError):
            if self._is_still(batch):  # no list, or one that was never finished
                self._forget(batch)
            return
        try:
            self._take(sources)
        finally:
            self._forget(batch)

    def _listed(self, batch: str, files: list[dict[str, object]]) -> list[Source]:
        """The files of a list, all of them whole.

        Raises: DatasetError where one is not; ValueError for what is no list of ours.
        """
        found = []
        for number, file in enumerate(files):
            path, name = self.folder / f"{batch}-{number}", str(file["name"])
            if not path.is_file() or path.stat().st_size != file["size"]:
                self._forget(batch)
                raise DatasetError(
                    f"{name} did not arrive whole.",
                    "Nothing was taken over.",
                    "Choose the pictures again.",
                )
            found.append(Source(path, name, is_ours=True))
        return found

    def _forget(self, batch: str) -> None:
        """Remove its pieces at once, its list a little later."""
        self._over.add(batch)
        for path in self.folder.glob(f"{batch}-*"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob(f"{batch}.*"):
            if time.time() - path.stat().st_mtime > LINGER:
                path.unlink(missing_ok=True)

    def _is_still(self, batch: str) -> bool:
        files = (p for p in self.folder.iterdir() if p.name.startswith((f"{batch}-", f"{batch}.")))
        newest = max((path.stat().st_mtime for path in files), default=0.0)
        return time.time() - newest > PATIENCE

    def _show_life(self) -> None:
        """So that no other kernel takes the folder for one that was left behind."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if time.monotonic() - self._touched > 60 or not self._touched:
            self._touched = time.monotonic()
            text = "Uploads pass through here. The folder goes when the kernel ends.\n"
            (self.folder / ALIVE).write_text(text, "utf-8")


def _mistake(error: Exception) -> KitError:
    return KitError(
        f"{type(error).__name__}: {without_secrets(error)}",
        "That is a mistake of LoRA Kit, or of a library it uses. Nothing was taken over.",
        "Write the path of a folder instead.",
    )


def new_mark() -> str:
    """A name for a staging folder, by which its box and its script are found, too."""
    return f"u{uuid.uuid4().hex[:8]}"


def shelf_below(root: Path) -> Path | None:
    """Where pieces can lie: below the server's root and writable, near the notebook if possible."""
    for folder in dict.fromkeys((resolved(Path.cwd()), root)):
        try:
            inside = folder.relative_to(root)
        except ValueError:
            continue
        is_hidden = any(part.startswith(".") for part in inside.parts)
        if not is_hidden and os.access(folder, os.W_OK):
            return folder / SHELF
    return None


def own_shelf() -> Path:
    """A place that no server needs to know, for Colab."""
    return Path(tempfile.gettempdir()) / SHELF


def _sweep(shelf: Path) -> None:
    """Remove the folders of kernels that ended without doing so."""
    if not shelf.is_dir():
        return
    for folder in shelf.iterdir():
        alive = folder / ALIVE
        try:
            age = time.time() - (alive if alive.exists() else folder).stat().st_mtime
        except OSError:
            continue
        if age > ABANDONED and MARK.fullmatch(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
