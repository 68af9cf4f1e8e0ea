"""Which file of a run to keep: a button, how far the comparison has come, and what it found.

The comparison loads the base model, so it works in a thread, named and not imported; what it found
lies in the run's folder, and is shown again by any later kernel.
"""

from __future__ import annotations

import base64
import contextvars
import threading
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import ipywidgets as widgets

from kit import catalog
from kit.choosing.record import Record, read_record
from kit.choosing.words import MEANINGS, TITLES, sentences, table
from kit.events import Cached, Event, Noticed
from kit.ui.errors import failure
from kit.ui.form.problem_texts import labelled
from kit.ui.look import Shown, block, escaped, root
from kit.ui.monitor.downloads import download

Compare: TypeAlias = Callable[[Path], Generator[Event, None, Any]]
COMPARE = "kit.comparing.job:compare"
TRAINING = "kit-training"  # the thread of `kit.ui.monitor.session`
ASK = "Which file to keep?"
LOST = "The comparison was left; the run and its files are as they were."


class ChoicePanel(Shown):
    """The button and what comes of it, of one run's folder."""

    def __init__(self, *, compare: Compare | None = None) -> None:
        super().__init__()
        self.run_dir: Path | None = None
        self._compare = compare
        self._thread: threading.Thread | None = None
        self._leaves = False
        self.button = widgets.Button(
            description=ASK,
            icon="check-square-o",
            tooltip="Draw with each file of this run, and compare them",
            layout=widgets.Layout(width="auto"),
        )
        self.stop = widgets.Button(
            description="Leave it", icon="stop", layout=widgets.Layout(width="auto", display="none")
        )
        self.bar = widgets.FloatProgress(
            min=0, max=1, layout=widgets.Layout(width="100%", height="8px", display="none")
        )
        self.line, self.found = block(css="kit-quiet kit-line"), block(css="kit-choice")
        self.button.on_click(lambda _: self.start())
        self.stop.on_click(lambda _: self._leave())
        row = widgets.HBox([self.button, self.stop], layout=widgets.Layout(flex_flow="row wrap"))
        self.box = widgets.VBox([row, self.bar, self.line, self.found])
        self.box.layout.display = "none"
        self.root = root(self.box)  # where it stands alone

    def show_of(self, run_dir: Path | None, *, is_over: bool) -> None:
        """Offer it where a run is over and has files; show what was chosen of it before."""
        self.run_dir = run_dir
        is_offered = is_over and run_dir is not None
        self.box.layout.display = None if is_offered else "none"
        if is_offered and run_dir is not None and not self.is_at_work:
            self._show(run_dir, read_record(run_dir))

    @property
    def is_at_work(self) -> bool:
        """A comparison is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to compare, unless it is at work, or a training is."""
        if self.is_at_work or self.run_dir is None:
            return
        if any(thread.name == TRAINING for thread in threading.enumerate()):
            self._say("A run is at work in this kernel; the files can be compared when it is over.")
            return
        self._leaves, self.button.disabled = False, True
        self.stop.layout.display = self.bar.layout.display = None
        self.bar.value = 0
        self._say("The base model is loaded ...")
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._work, self.run_dir),
            name="kit-choosing",
            daemon=True,
        )
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _leave(self) -> None:
        self._leaves = True
        self._say("It ends after these pictures.")

    def _work(self, run_dir: Path) -> None:
        told: list[str] = []
        try:
            compare: Compare = self._compare or catalog.load(COMPARE)
            with closing(compare(run_dir)) as events:
                for event in events:
                    self._tell(event, told)
                    if self._leaves:
                        self._say(LOST)
                        return
            self.line.value = ""
            self._show(run_dir, read_record(run_dir))
        except BaseException as error:  # whatever it is, the person must see it here
            self.line.value = failure(error, resumes=False)
        finally:
            self.button.disabled = False
            self.stop.layout.display = self.bar.layout.display = "none"

    def _tell(self, event: Event, told: list[str]) -> None:
        if isinstance(event, Cached):
            self.bar.value = event.done / max(1, event.total)
            self._say(" ".join([f"{event.what}: {event.done} of {event.total}", *told]))
        elif isinstance(event, Noticed):
            told.append(f"({labelled(event.text)})")

    def _say(self, text: str) -> None:
        self.line.value = escaped(text)

    def _show(self, run_dir: Path, record: Record | None) -> None:
        html = "" if record is None else choice_html(record, run_dir)
        if self.found.value != html:
            self.found.value = html


def choice_html(record: Record, run_dir: Path) -> str:
    """Which file, why and how sure; the best files' pictures; all numbers, folded."""
    first, *rest = sentences(record.choice)
    said = "".join(f"<li>{escaped(labelled(text))}</li>" for text in (*rest, *record.notices))
    rows = table(record.choice)
    files = "".join(_numbers(row) for row in rows)
    means = "".join(
        f"<tr><th>{escaped(name)}</th><td>{escaped(text)}</td></tr>"
        for name, text in {**MEANINGS, "seen by": record.eye}.items()
    )
    return (
        f"<div class='kit-head'>{escaped(first)}</div><div class='kit-notes'><ul>{said}</ul></div>"
        f"{_grid(run_dir / record.grid) if record.grid else ''}"
        f"<details class='kit-files'><summary>What was measured of {len(rows)} "
        f"file{'' if len(rows) == 1 else 's'}</summary>{files}"
        f"<table class='kit-table'>{means}</table></details>"
    )


def _numbers(row: Sequence[str]) -> str:
    """A file's, each beneath its title."""
    cells = "".join(
        f"<div><span>{escaped(title)}</span><b>{escaped(cell)}</b></div>"
        for title, cell in zip(TITLES[1:], row[1:], strict=True)
    )
    return f"<div class='kit-prompt'>{escaped(row[0])}</div><div class='kit-numbers'>{cells}</div>"


def _grid(file: Path) -> str:
    """The picture itself, so that it stays in the notebook; a click enlarges it.

    Nothing where it is gone.
    """
    try:
        source = f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"
    except OSError:
        return ""
    mark, words = f"kit-{uuid.uuid4().hex[:12]}", "The bare base model and the best files, drawn"
    words = f"{words} with the same prompts and seeds"
    return (
        f"<div class='kit-compared'><button type='button' class='kit-open' popovertarget='{mark}' "
        f"aria-label='Enlarge: {words}'><img src='{source}' alt='{words}'></button>"
        f"<div class='kit-quiet'>{words}</div>"
        f"<div id='{mark}' popover class='kit-large' role='dialog' aria-label='{words}'>"
        f"<img src='{source}' alt='{words}'>{download(file, 'Download')} "
        f"<button type='button' class='kit-button' popovertarget='{mark}' "
        "popovertargetaction='hide'>Close</button></div></div>"
    )
