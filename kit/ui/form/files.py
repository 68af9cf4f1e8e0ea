"""Settings in and out of the form: by path on the kernel's machine, or through the browser."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from kit.errors import KitError, SettingsError
from kit.exchange import Report, export_gui, export_sd_scripts, load_any
from kit.reading.paths import path_of
from kit.runs.atomic_write import write_text
from kit.settings import Settings
from kit.settings.diffs import diff
from kit.ui.form.problem_texts import as_lines, as_list
from kit.ui.look import block, escaped, named
from kit.ui.start.offer import Fill, Offer

ACCEPTED = ".toml,.json,.safetensors,.txt"


class SettingsFiles:
    """The row beneath the form that loads, saves, uploads and downloads."""

    def __init__(
        self, settings: Callable[[], Settings], readable: Callable[[], Settings], fill: Fill
    ) -> None:
        """settings() reads the form, or raises; readable() takes what of it can be read.

        fill() puts settings into it; what a file would change is shown before.
        """
        self._settings, self._readable, self._fill = settings, readable, fill
        self.offer_changes = Offer()
        self.path = widgets.Text(
            "run.toml",
            continuous_update=False,
            layout=widgets.Layout(width="320px", max_width="100%"),
        )
        named(self.path, "Settings file", hidden=True)
        self.load_button = _button("Load", "Fill the form from this file on the kernel's machine")
        self.save_button = _button("Save", "Write the form's settings to this file")
        self.upload = widgets.FileUpload(
            accept=ACCEPTED,
            multiple=False,
            description="Upload a file",
            layout=widgets.Layout(width="auto"),
        )
        self.download = widgets.HTML()
        self.line = block(css="kit-quiet")
        self.report = block(css="kit-quiet")
        self.load_button.on_click(lambda _: self._tell(self._load))
        self.save_button.on_click(lambda _: self._tell(self._save))
        self.upload.observe(lambda _: self._tell(self._take_upload), names="value")
        row = widgets.HBox(
            [self.path, self.load_button, self.save_button, self.upload, self.download],
            layout=widgets.Layout(flex_flow="row wrap", align_items="center"),
        )
        row.add_class("kit-bar")
        parts = [row, self.line, self.report, self.offer_changes.root]
        self.root = widgets.VBox(parts, layout=widgets.Layout(width="100%"))

    def offer(self, settings: Settings) -> None:
        """Let the browser download these settings, for LoRA Kit and for other programs."""
        texts = {
            "run.toml": settings.to_toml(with_help=False),
            "kohya_ss.json": export_gui(settings)[0],
            "sd_scripts.toml": export_sd_scripts(settings)[0],
        }
        links = " ".join(_link(name, text) for name, text in texts.items())
        self.download.value = f"<span class='kit-quiet'>Download:</span> {links}"

    def forget(self) -> None:
        """Take back what was told of the last file."""
        self.line.value = self.report.value = ""
        self.offer_changes.forget()

    def _load(self) -> str:
        path = self._named_file()
        return self._filled_from(path, str(path))

    def _filled_from(self, path: Path, name: str) -> str:
        """Offer what a file of any known kind would change, and tell what became of each key.

        What stands in the form stays where the file says nothing.
        """
        self.offer_changes.forget()
        now = self._readable()
        settings, report = load_any(path, now)
        if report.elsewhere:
            return f"{report.summary()}."
        if not report.is_foreign and (problems := report.problems()):
            raise SettingsError(problems)
        self.report.value = _in_words(report)
        do = partial(self._fill, settings, name)
        self.offer_changes.show(name, diff(now, settings), do)
        return f"Read {name}."

    def _save(self) -> str:
        path = self._named_file()
        text, told = self._written(path)
        write_text(path, text)
        self.report.value = as_list(told)
        return f"Saved as {path}."

    def _written(self, path: Path) -> tuple[str, list[str]]:
        """The settings in the language of the file's ending: .json is the kohya_ss GUI's."""
        settings = self._settings()
        return export_gui(settings) if path.suffix == ".json" else (settings.to_toml(), [])

    def _take_upload(self) -> str:
        import tempfile

        for name, content in uploaded(self.upload.value):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / Path(name).name
                file.write_bytes(content)
                return self._filled_from(file, name)
        return ""

    def _named_file(self) -> Path:
        return path_of(self.path.value.strip() or "run.toml")

    def _tell(self, job: Callable[[], str]) -> None:
        """Do what a button asks for, and say how it went beside it."""
        try:
            self.report.value = ""
            self.line.value = escaped(job())
        except KitError as error:
            self.line.value = as_lines(str(error))


def uploaded(value: Any) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an upload: a dictionary in ipywidgets 7, a tuple in 8."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield name, bytes(entry["content"])
    else:
        for entry in value:
            yield entry["name"], bytes(entry["content"])


def _link(name: str, text: str) -> str:
    data = base64.b64encode(text.encode()).decode()
    address = f"data:text/plain;base64,{data}"
    return f"<a class='kit-link' download='{name}' href='{address}'>{name}</a>"


def _in_words(report: Report) -> str:
    """The counts; beneath them what needs a look, and folded each key that was not simply taken.

    The keys that hold are many (a file of the GUI has 130 for other families): what the file would
    change, and the button that does it, would lie two screens below them.
    """
    if not report.is_foreign:
        return ""
    first, more = list(report.to_decide()), list(report.to_know(with_taken=False))
    if not first:
        return _folded(report.summary(), more)
    rest = _folded("What became of the other keys", more) if more else ""
    return f"<div>{_lines([report.summary(), *first])}</div>{rest}"


def _folded(title: str, lines: Iterable[str]) -> str:
    return f"<details><summary>{escaped(title)}</summary>{_lines(lines)}</details>"


def _lines(lines: Iterable[str]) -> str:
    return "<br>".join(escaped(line) for line in lines)


def _button(text: str, hint: str) -> widgets.Button:
    return widgets.Button(description=text, tooltip=hint, layout=widgets.Layout(width="auto"))
