"""Pictures in: upload, a folder of the machine, a data set that is there, Kaggle, Drive.

    pictures = PicturesIn(folder, on_folder, words)
    display(pictures.root)        anywhere inside the form
    display(pictures.script)      in the same cell, beneath it; it shows nothing itself

Every way ends the same: a data set folder that can be trained, and `on_folder` is told of it. The
work is done in a thread; widgets change and `on_folder` is called in the kernel's own loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as widgets

from kit.dataset import data_sets
from kit.dataset.data_sets import Words
from kit.dataset.incoming import Source
from kit.dataset.receiving import Received, receive
from kit.errors import KitError
from kit.hosts import Host, host
from kit.reading.paths import path_of, why_no_path
from kit.ui.jupyter_server import server_root
from kit.ui.look import block, escaped, grid
from kit.ui.pictures.box import Script, drop_box, upload_script
from kit.ui.pictures.places import given_folders, kept_folder
from kit.ui.pictures.staging import Staging, new_mark, own_shelf, shelf_below
from kit.ui.welcome import connect_drive

NEW = "a new data set"


class PicturesIn:
    """The part of the form that asks from which pictures a LoRA is to learn."""

    _at_work: ClassVar[PicturesIn | None] = None  # whose thread runs; an older form's ends

    def __init__(
        self,
        folder: Callable[[], Path],
        on_folder: Callable[[Path], object],
        words: Callable[[], Words],
        *,
        kept: Callable[[], Path | None] | None = None,
        connect: Callable[[], str] | None = None,
        here: Host | None = None,
    ) -> None:
        """folder(): below which named data sets lie. on_folder(path): a new train_data_dir.

        words(): trigger, class word and repeats as the form has them. kept(): where a copy goes
        (Drive), or None. connect(): asks for Drive; "" or why there is none.
        """
        self._folder, self._on_folder, self._words = folder, on_folder, words
        self._here = here or host()
        self._kept = kept or (lambda: kept_folder(self._here))
        self._connect = connect or connect_drive
        self._mark, self._staging = new_mark(), None  # type: tuple[str, Staging | None]
        self._arranged: Path | None = None  # a folder whose name follows the words
        self._is_filling, self._said = False, 0.0
        self._receiving = threading.Lock()  # held while pictures are put in place
        self._loop, self._context = _running_loop(), contextvars.copy_context()
        self.box = widgets.HTML(drop_box(self._mark), layout=widgets.Layout(width="100%"))
        self.data_set = widgets.Dropdown(
            description="Data set", options=[(NEW, "")], layout=_wide(), style=_labelled()
        )
        self.name = widgets.Text(
            description="Its name",
            placeholder="from the zip or the trigger word",
            continuous_update=False,
            layout=_wide(),
            style=_labelled(),
        )
        self.path = widgets.Text(
            description="Or a folder or zip of this machine",
            placeholder="/path/to/pictures",
            continuous_update=False,
            layout=_wide(),
            style=_labelled(),
        )
        self.drive_button = widgets.Button(
            description="Use Google Drive",
            tooltip="Asks for access to your Drive, and lists the data sets there",
            layout=widgets.Layout(width="auto"),
        )
        self.line = block(css="kit-quiet")
        self.line.add_class("kit-arrived")
        self._lay_out()
        self.refresh()

    def _lay_out(self) -> None:
        self.data_set.observe(lambda _: self._choose(), names="value")
        self.path.observe(lambda _: self._take_path(), names="value")
        self.drive_button.on_click(lambda _: self._take_drive())
        self.path.add_class("kit-wide")
        fields = grid([self.data_set, self.name, self.path], column=220)
        self.root = widgets.VBox(
            [self.box, fields, self.drive_button, self.line], layout=widgets.Layout(width="100%")
        )
        self.root.add_class("kit-pictures-in")

    @property
    def script(self) -> Script:
        """What makes the upload work: to be displayed in the cell that shows `root`.

        It begins the thread that takes what is uploaded.
        """
        return upload_script(self._mark, *self._ways())

    def close(self) -> None:
        """End the thread; what was received stays."""
        if self._staging is not None:
            self._staging.close()
            self._staging = None

    def refresh(self) -> None:
        """List what can be chosen anew."""
        chosen, found = self.data_set.value, {NEW: ""}
        for name, count in data_sets.known_sets(self._folder()).items():
            found[f"{name} ({_pictures(count)})"] = str(self._folder() / name)
        if (kept := self._kept()) is not None:
            for name, count in data_sets.known_sets(kept).items():
                if not (self._folder() / name).is_dir():
                    found[f"{name}, on Drive ({_pictures(count)})"] = str(kept / name)
        for path in given_folders(self._here):
            found[f"Kaggle input {path.name}"] = str(path)
        self._is_filling = True
        self.data_set.options = list(found.items())
        self.data_set.value = chosen if chosen in found.values() else ""
        self._is_filling = False
        is_colab = self._here.name == "colab" and self._here.slow is None
        self.drive_button.layout.display = None if is_colab else "none"
        self._show_name()

    def offer(self, path: Path | str) -> None:
        """Show the folder that the form holds already; nobody is told."""
        self._is_filling = True
        values = [value for _, value in self.data_set.options]
        text = str(path) if str(path).strip() else ""
        is_path = text and not why_no_path(text)
        absolute = str(path_of(text).absolute()) if is_path else ""
        if absolute in values:
            self.data_set.value, self.path.value = absolute, ""
        else:
            self.data_set.value, self.path.value = "", text
        self._is_filling = False
        self._show_name()

    def use_words(self, words: Words) -> None:
        """Trigger or class word were changed: a folder that was named by them gets its new name.

        At once, so that no plan is made of the old one; while pictures are put in place, after
        that, and then `on_folder` is called. Only a folder that an upload of this session
        arranged; not to be called while a run is at work.
        """
        if self._arranged is None or self._arranged.name == words.folder:
            return
        if not self._receiving.acquire(blocking=False):
            self._work().do(lambda: self._rename_later(words))
            return
        try:
            self._rename(words)
        except KitError as error:
            self._fail(error)
        finally:
            self._receiving.release()

    def keep_name(self) -> None:
        """The folder's name follows the words no more: a run that waits reads it under this one."""
        self._arranged = None

    def _rename(self, words: Words) -> None:
        before = self._arranged
        if before is None or not before.is_dir() or before.name == words.folder:
            return
        self._arranged = data_sets.renamed(before, words)
        if (kept := self._kept()) is not None:
            copy = kept / before.parent.name / before.name
            if copy.is_dir():
                self._work().do(lambda: data_sets.renamed(copy, words))

    def _rename_later(self, words: Words) -> None:
        with self._receiving:
            self._rename(words)
            arranged = self._arranged
        if arranged is not None:
            self._in_kernel(lambda: self._on_folder(arranged.parent))

    def _choose(self) -> None:
        if self._is_filling:
            return
        self._show_name()
        if self.data_set.value:
            self._use(Path(self.data_set.value))

    def _take_path(self) -> None:
        text = self.path.value.strip().strip("\"'").strip()
        if text and not self._is_filling:
            self._use(path_of(text, "The folder of pictures").absolute())

    def _take_drive(self) -> None:
        if problem := self._connect():
            self._say(problem)
            return
        self._here = host()
        self.refresh()
        self._say("Drive is connected: choose a data set, or write the path of a folder there.")
        self.path.placeholder = f"{self._here.slow}/MyDrive/..."

    def _use(self, path: Path) -> None:
        """Take a folder as it is, or, where it must be arranged or is slow, a copy of it."""
        self._say(f"Looks into {path} ...")
        self._work().do(lambda: self._look_into(path))

    def _look_into(self, path: Path) -> None:
        with self._receiving:
            self._take_from(path)

    def _take_from(self, path: Path) -> None:
        as_it_is = data_sets.usable_as_it_is(path)
        if as_it_is is None or self._here.is_slow(path):
            local = self._folder() / path.name
            if as_it_is is not None and data_sets.is_same(as_it_is, local):
                as_it_is = local  # copied in this session already
            else:
                name = path.name if path.is_dir() else path.stem
                on_drive = self._here.is_slow(path)
                self._receive(data_sets.sources_in(path), name=name, is_kept=on_drive)
                return
        self._arranged = None
        count = data_sets.picture_count(as_it_is)
        told = f"{_pictures(count)} in {_short(as_it_is)}, used as it is."
        self._in_kernel(lambda: self._arrive(as_it_is, told))

    def _take_batch(self, sources: Sequence[Source]) -> None:
        """An upload is whole: put it where the menu says."""
        chosen = Path(self.data_set.value) if self.data_set.value else None
        is_ours = chosen is not None and chosen.parent == self._folder()
        name, into = self.name.value.strip(), chosen if is_ours else None
        with self._receiving:
            self._receive(sources, name=name, into=into)

    def _receive(
        self,
        sources: Sequence[Source],
        *,
        name: str,
        into: Path | None = None,
        is_kept: bool = False,
    ) -> None:
        """is_kept: it lies on Drive already."""
        words, kept = self._words(), None if is_kept else self._kept()
        received = receive(
            sources,
            self._folder(),
            words,
            name=name,
            into=into,
            kept=kept if into is None else None,
            tell=self._tell_progress,
        )
        if into is None:
            self._arranged = received.arranged
        told = "\n".join([_in_words(received, words), *(f"{n}." for n in received.notes)])
        self._in_kernel(lambda: self._arrive(received.dataset, told))
        if kept is not None:
            self._keep(received.dataset, kept, told)

    def _keep(self, dataset: Path, kept: Path, told: str) -> None:
        """A copy on Drive; that it failed is told, and ends nothing."""
        try:
            data_sets.copy_new(dataset, kept / dataset.name)
            text = f"Copied to {kept / dataset.name}, to be used again."
        except OSError as error:
            text = f"It could not be copied to {kept} ({error.strerror or error})."
        self._in_kernel(lambda: self._say(f"{told}\n{text}"))

    def _arrive(self, dataset: Path, told: str) -> None:
        self.refresh()
        self.offer(dataset)
        self._say(told)
        self._on_folder(dataset)

    def _tell_progress(self, done: int, total: int) -> None:
        if (now := time.monotonic()) - self._said > 0.5:
            self._said = now
            text = f"Puts pictures in place: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB."
            self._in_kernel(lambda: self._say(text))

    def _say(self, text: str, *, is_bad: bool = False) -> None:
        """Plain text; the first line counts."""
        first, _, rest = text.partition("\n")
        css, role = ("kit-problem", "alert") if is_bad else ("", "status")
        more = "".join(f"<div>{escaped(line)}</div>" for line in rest.splitlines())
        self.line.value = f"<div class='{css}' role='{role}'>{escaped(first)}</div>{more}"

    def _fail(self, error: KitError) -> None:
        self._in_kernel(lambda: self._say(str(error), is_bad=True))

    def _show_name(self) -> None:
        self.name.layout.display = "none" if self.data_set.value else None

    def _work(self) -> Staging:
        """The thread, begun when it is first needed; that of an older form ends."""
        if self._staging is None:
            older, PicturesIn._at_work = PicturesIn._at_work, self
            if older is not None:
                older.close()
            shelf = None
            if self._here.name != "colab" and (root := server_root()) is not None:
                shelf = shelf_below(root)
            folder = (shelf or own_shelf()) / self._mark
            self._staging = Staging(folder, self._take_batch, self._fail)
        return self._staging

    def _ways(self) -> tuple[str, str]:
        """The folder below the server's root, and the function that Colab's page calls."""
        folder, root = self._work().folder, server_root()
        if self._here.name == "colab":
            return "", _registered(f"lora-kit-{self._mark}", self._take_piece)
        if root is None or not folder.is_relative_to(root):
            return "", ""
        return folder.relative_to(root).as_posix(), ""

    def _take_piece(self, name: str, at: int, text: str) -> Any:
        """What Colab's page calls; the answer is JSON."""
        from IPython.display import JSON

        try:
            return JSON({"size": self._work().write(name, at, text)})
        except (OSError, ValueError) as error:
            return JSON({"error": getattr(error, "strerror", None) or str(error)})

    def _in_kernel(self, job: Callable[[], object]) -> None:
        """Do it in the kernel's loop, where its cells and widgets run; at once without one."""
        if self._loop is None or self._loop.is_closed():
            job()
        else:
            self._loop.call_soon_threadsafe(job, context=self._context)


def _registered(name: str, function: Callable[..., object]) -> str:
    """The name under which Colab's pages can call the function; "" where they cannot."""
    try:
        from google.colab import output
    except ImportError:
        return ""
    output.register_callback(name, function)
    return name


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _in_words(received: Received, words: Words) -> str:
    captions = "1 caption" if received.captions == 1 else f"{received.captions} captions"
    text = f"{_pictures(received.pictures)}, {captions} in {_short(received.dataset)}."
    if received.captions >= received.pictures or received.arranged is None:
        return text
    shown = received.arranged.name.partition("_")[2]
    if shown:
        return f'{text} Pictures without a caption learn "{shown}".'
    return f"{text} Pictures without a caption learn the trigger word and the class word."


def _short(path: Path) -> Path:
    """Below the notebook's folder as one would type it there."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"


def _wide() -> widgets.Layout:
    return widgets.Layout(width="auto", min_width="0")


def _labelled() -> dict[str, str]:
    return {"description_width": "initial"}
