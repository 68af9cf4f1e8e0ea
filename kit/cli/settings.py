"""`kit settings`: every declaration as TOML, JSON or Markdown."""

from __future__ import annotations

import argparse
import dataclasses
import json

from kit.settings import Declared, Settings, declarations


def describe_settings(parser: argparse.ArgumentParser) -> None:
    """The forms that it can have."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--toml", action="store_true", help="a file to begin with (the default)")
    form.add_argument("--json", action="store_true", help="every declaration, for programs")
    form.add_argument("--markdown", action="store_true", help="tables, for people")


def act_settings(chosen: argparse.Namespace) -> None:
    """Print every setting."""
    if chosen.json:
        print(settings_json())
    elif chosen.markdown:
        print(settings_markdown())
    else:
        print(Settings().to_toml().strip())


def settings_json() -> str:
    """Every declared setting as a JSON list, in the order of the form."""
    rows = [
        {**dataclasses.asdict(declared), "possible": declared.possible}
        for declared in declarations().values()
    ]
    return json.dumps(rows, indent=2)


def settings_markdown() -> str:
    """Every declared setting in Markdown tables, one for each box of the form."""
    by_box: dict[str, list[Declared]] = {}
    for declared in declarations().values():
        by_box.setdefault(declared.box, []).append(declared)
    return "\n\n".join(
        "\n".join([f"## {box}", "", *_MARKDOWN_HEAD, *(_markdown_row(row) for row in rows)])
        for box, rows in by_box.items()
    )


_MARKDOWN_HEAD = (
    "| Setting | Label | Default | Possible | What it does |",
    "| --- | --- | --- | --- | --- |",
)


def _markdown_row(declared: Declared) -> str:
    default = "" if declared.default in (None, "") else f"`{_toml_word(declared.default)}`"
    cells = (
        f"`{declared.name}`",
        _markdown(declared.label),
        default or "blank",
        _markdown(declared.possible),
        _markdown(declared.help),
    )
    return f"| {' | '.join(cells)} |"


def _toml_word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _markdown(text: str) -> str:
    """Text in which nothing is taken for a tag, a column or emphasis."""
    for mark in "\\|*_<>":
        text = text.replace(mark, f"\\{mark}")
    return text
