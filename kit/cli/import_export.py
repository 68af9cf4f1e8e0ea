"""`kit import` and `kit export`: settings of other programs come in, ours go out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kit.cli.command import Command
from kit.cli.settings_arguments import read_settings, takes_settings
from kit.errors import KitError
from kit.exchange import export_gui, export_sd_scripts, load_any
from kit.runs.atomic_write import write_text
from kit.settings import Settings

WRONG = 2  # nothing could be taken


def _describe_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="the kohya_ss GUI's JSON, sd-scripts' TOML, a text with its command line, or a LoRA",
    )
    parser.add_argument(
        "--toml",
        type=Path,
        metavar="run.toml",
        help="write what is understood to this file; where it is there, the rest of it stays",
    )
    parser.epilog = """examples:
  %(prog)s old_preset.json
  %(prog)s train.sh --toml run.toml
  %(prog)s cat.safetensors --toml again.toml"""


def _act_import(chosen: argparse.Namespace) -> int | None:
    is_there = chosen.toml is not None and chosen.toml.exists()
    base = Settings.load(chosen.toml) if is_there else None
    settings, report = load_any(chosen.file, base)
    print(report)
    if report.elsewhere:
        return WRONG
    if chosen.toml:
        write_text(chosen.toml, settings.to_toml())
        kept = "; what the file does not mention stays as it was there" if is_there else ""
        print(f"written: {chosen.toml}{kept}")
    return None


def _describe_export(parser: argparse.ArgumentParser) -> None:
    takes_settings(parser)
    parser.add_argument("--kohya-json", type=Path, metavar="gui.json", help="for the kohya_ss GUI")
    parser.add_argument("--sd-scripts", type=Path, metavar="train.toml", help="for sd-scripts")
    parser.epilog = """examples:
  %(prog)s run.toml --kohya-json gui.json
  %(prog)s run.toml --sd-scripts train.toml"""


def _act_export(chosen: argparse.Namespace) -> None:
    settings = read_settings(chosen.file, chosen.changes, preset=chosen.preset)
    wanted = [
        (path, export)
        for path, export in (
            (chosen.kohya_json, export_gui),
            (chosen.sd_scripts, export_sd_scripts),
        )
        if path
    ]
    if not wanted:
        raise KitError(
            "kit export: there is nothing to write.",
            do="Give --kohya-json gui.json, --sd-scripts train.toml, or both.",
        )
    for path, export in wanted:
        text, notices = export(settings)
        write_text(path, text)
        print(f"written: {path}")
        print(*(f"! {notice}" for notice in notices), sep="\n", end="\n" if notices else "")
    sys.stdout.flush()


IMPORT = Command(
    "read settings of other programs, and tell what became of each", _describe_import, _act_import
)
EXPORT = Command("write settings for other programs", _describe_export, _act_export)
