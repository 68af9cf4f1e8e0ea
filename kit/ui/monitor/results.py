"""What a run leaves behind: its newest LoRA and where to put it, its pictures, all of its files.

Everything is found again on disk: in a new kernel, on another day, in a folder that has moved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import ipywidgets as widgets
from IPython.display import display

from kit.basemodel.headers import read_header
from kit.errors import KitError
from kit.events import Saved
from kit.reading.paths import path_of
from kit.sinks import read_events
from kit.sinks.model_card import trigger_words
from kit.ui.look import escaped, style, style_sheet
from kit.ui.monitor.downloads import buttons, download, link, path_to_copy
from kit.ui.monitor.history import History
from kit.ui.monitor.pictures import Samples, locate, picture_html, rows_of, sides_for
from kit.ui.monitor.sheet import save_sheet

LORA_SUFFIXES = (".safetensors", ".ckpt", ".pt")
# Where programs look for a LoRA, in their own folder: their wikis, November 2026.
PLACES = (
    ("AUTOMATIC1111", "stable-diffusion-webui/models/Lora", "prompt"),
    ("Forge", "stable-diffusion-webui-forge/models/Lora", "prompt"),
    ("ComfyUI", "ComfyUI/models/loras", "node"),
)


@dataclass(frozen=True)
class RunFile:
    """A file of a run, as a list shows it."""

    path: Path
    what: str
    bytes: int


@dataclass(frozen=True)
class Results:
    """A run's results; as a cell's last line they are HTML and stay in the notebook.

    path: the newest LoRA file, "" for none.
    """

    path: str
    samples: Samples
    run_dir: Path | None = None
    saved: Sequence[Saved] = ()

    @classmethod
    def of_run(cls, run_dir: Path) -> Self:
        """What lies in a run's folder.

        Raises: KitError where its events.jsonl cannot be read.
        """
        history = History()
        history.add_all(read_events(run_dir / "events.jsonl"))
        return cls.of(history, run_dir)

    @classmethod
    def of(cls, history: History, run_dir: Path | None) -> Self:
        """What a run has come to so far."""
        return cls(history.newest_file, history.samples, run_dir, tuple(history.saved))

    def __repr__(self) -> str:
        return self.path or "no LoRA file yet"

    def _ipython_display_(self) -> None:
        """HTML that stays; on Colab with buttons, for its pages give out no files by themselves."""
        display({"text/html": self._repr_html_(), "text/plain": repr(self)}, raw=True)
        newest = find_file(self.path, self.run_dir) if self.path else None
        if taking := buttons([str(newest)] if newest else []):
            box = widgets.VBox([style_sheet(), *taking])
            box.add_class("kit")
            display(box)

    def _repr_html_(self) -> str:
        newest = newest_html(self.path, self.run_dir, opened=True)
        return (
            f"<div class='kit'>{style()}{newest}{self._pictures()}"
            f"{files_html(self.saved, self.run_dir)}</div>"
        )

    def _pictures(self) -> str:
        """Every round of every prompt, small; and all of them as one picture."""
        rows = rows_of(self.samples)
        count = sum(map(len, rows.values()))
        if not count:
            return ""
        side, large = sides_for(count)
        cell = min(150, side)
        parts = []
        for drawn in rows.values():
            shots = "".join(
                picture_html(s, locate(s.path, self.run_dir), side=side, large=large)[0]
                for s in drawn
            )
            title = f"<div class='kit-prompt'>{escaped(drawn[-1].prompt)}</div>"
            parts.append(f"{title}<div class='kit-shots' style='--cell:{cell}px'>{shots}</div>")
        return f"<div class='kit-head'>Sample pictures</div>{self._sheet()}{''.join(parts)}"

    def _sheet(self) -> str:
        if self.run_dir is None:
            return ""
        try:
            file = save_sheet(self.samples, self.run_dir)
        except KitError as error:
            return f"<div class='kit-quiet'>{escaped(error.found)}</div>"
        name = f"{self.run_dir.stem}-{file.name}"
        words = "Download all as one picture"
        return f"<div class='kit-newest'>{download(file, words, name=name)}</div>"


def newest_run(folders: Iterable[Path], name: str = "") -> Path | None:
    """The run that was at work last in these output folders; None where there is none.

    name: of this name, or of this name with a number.
    """
    found: list[tuple[float, Path]] = []
    called = re.compile(rf"{re.escape(name)}(-\d+)?" if name else ".*")
    for folder in dict.fromkeys(folders):
        for events in path_of(folder).glob("*.run/events.jsonl"):
            if not called.fullmatch(events.parent.stem):
                continue
            try:
                found.append((events.stat().st_mtime, events.parent))
            except OSError:  # removed just now
                continue
    return max(found, default=(0.0, None))[1]


def find_file(path: str, run_dir: Path | None) -> Path | None:
    """Where a LoRA file lies now, the run may have moved; None where it is gone."""
    told = Path(path)
    places = [told] if run_dir is None else [told, run_dir.parent / told.name]
    return next((place for place in places if place.is_file()), None)


# -------------------------------------------------------------------------- the newest LoRA


def newest_html(path: str, run_dir: Path | None, *, opened: bool = False) -> str:
    """The newest LoRA with its button, and folded beneath it where to put it."""
    if not path:
        return "<div class='kit-newest kit-quiet'>no LoRA file yet</div>"
    file = find_file(path, run_dir)
    if file is None:
        return f"<div class='kit-newest'>{path_to_copy(path)} <span>(no longer there)</span></div>"
    size = in_bytes(_stamp(file)[1])
    button = download(file, f"Download {file.name}", is_first=True)
    is_open = " open" if opened else ""
    return (
        f"<div class='kit-newest'>{button}<span>{size}</span></div>"
        f"<details{is_open}><summary>Where to put it</summary>{how_to_use(file)}</details>"
    )


def how_to_use(file: Path) -> str:
    """The folder in each program, and what to write into a prompt; a click selects what to copy."""
    words = words_of(file)
    trigger = ", ".join(words)
    prompt = f"<lora:{file.stem}:1> {trigger}".strip()
    rows = [("the file", path_to_copy(file))]
    if trigger:
        rows.append(("trigger word" if len(words) == 1 else "trigger words", path_to_copy(trigger)))
    for program, folder, way in PLACES:
        use = (
            f"in the prompt {path_to_copy(prompt)}"
            if way == "prompt"
            else "choose it in the node <b>Load LoRA</b>"
            + (f", and write {path_to_copy(trigger)} into the prompt" if trigger else "")
        )
        rows.append((program, f"<code>{folder}/</code>, then {use}"))
    cells = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in rows)
    return f"<table class='kit-table'>{cells}</table>"


def words_of(file: Path) -> list[str]:
    """The trigger words that the LoRA file tells; none where it tells nothing."""
    if file.suffix != ".safetensors":
        return []
    try:
        return trigger_words(read_header(file).metadata)
    except (KitError, OSError):
        return []


# ---------------------------------------------------------------------------------- files


def files_html(saved: Sequence[Saved], run_dir: Path | None) -> str:
    """All files of the run, folded; each can be downloaded where the page can do that."""
    found = files_of(saved, run_dir)
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{link(str(file.path))}</td><td>{file.what}</td>"
        f"<td style='text-align:right'>{in_bytes(file.bytes)}</td></tr>"
        for file in found
    )
    noun = "file" if len(found) == 1 else "files"
    return (
        f"<details class='kit-files'><summary>All {len(found)} {noun} of the run</summary>"
        f"<table class='kit-table'>{rows}</table></details>"
    )


def files_of(saved: Sequence[Saved], run_dir: Path | None) -> list[RunFile]:
    """LoRA files, newest first, then sample pictures and what lies in the run's folder."""
    steps = {Path(event.path).name: event.step for event in saved}
    places = [find_file(event.path, run_dir) for event in saved]
    loras = {place.name: place for place in places if place is not None}
    others: list[RunFile] = []
    if run_dir is not None:
        name, folder = run_dir.stem, run_dir.parent
        own = re.compile(rf"{re.escape(name)}(-\d{{6}}|-step\d{{8}})?")
        loras |= {
            p.name: p
            for p in _files_in(folder)
            if p.suffix in LORA_SUFFIXES and own.fullmatch(p.stem)
        }
        drawn = re.compile(rf"{re.escape(name)}_e?\d{{6}}_.*\.png")
        others += [
            _file(p, "sample picture")
            for p in _files_in(folder / "sample")
            if drawn.fullmatch(p.name)
        ]
        others += [_file(p, _about(p)) for p in _files_in(run_dir)]
    ordered = sorted(loras.values(), key=_stamp, reverse=True)
    told = [_file(p, f"LoRA, step {steps[p.name]}" if p.name in steps else "LoRA") for p in ordered]
    return [*told, *others]


ABOUT = {
    "run.toml": "the settings",
    "events.jsonl": "what happened",
    "loss.png": "the curve",
    "samples.jpg": "all samples as one picture",
}


def _about(path: Path) -> str:
    return ABOUT.get(path.name, "of the run")


def _file(path: Path, what: str) -> RunFile:
    return RunFile(path, what, _stamp(path)[1])


def _stamp(path: Path) -> tuple[float, int]:
    """Time of change and size; nothing for a file that the run replaces just now."""
    try:
        told = path.stat()
    except OSError:
        return 0.0, 0
    return told.st_mtime, told.st_size


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix != ".part")
    except OSError:
        return []


def in_bytes(count: int) -> str:
    """In kB or MB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{max(1, round(count / 1e3))} kB"
